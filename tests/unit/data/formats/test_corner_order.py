"""Corners of a box may be any two opposite ones: some tools keep the order in which they were drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from deixis.data.formats import read_dataset

CORNERS = [((x1, y1), (x2, y2)) for (x1, x2), (y1, y2) in product(((4, 20), (20, 4)), ((6, 30), (30, 6)))]


def write_voc(folder: Path, boxes: list[list[float]]) -> Path:
    rows = "".join(
        f"<object><name>cat</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "</object>"
        for x1, y1, x2, y2 in boxes
    )
    (folder / "a.xml").write_text(f"<annotation><filename>a.png</filename>{rows}</annotation>")
    return folder


def write_odvg(folder: Path, boxes: list[list[float]]) -> Path:
    line = {"filename": "a.png", "height": 48, "width": 64}
    line["detection"] = {"instances": [{"bbox": box, "label": 0, "category": "cat"} for box in boxes]}
    (folder / "a.jsonl").write_text(json.dumps(line) + "\n")
    return folder / "a.jsonl"


def write_csv(folder: Path, boxes: list[list[float]]) -> Path:
    rows = ["filename,class,xmin,ymin,xmax,ymax", *(f"a.png,cat,{','.join(map(str, box))}" for box in boxes)]
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder / "boxes.csv"


def write_openimages(folder: Path, boxes: list[list[float]]) -> Path:
    shares = [[x1 / 64, y1 / 48, x2 / 64, y2 / 48] for x1, y1, x2, y2 in boxes]
    rows = ["ImageID,LabelName,XMin,YMin,XMax,YMax", *(f"a,cat,{','.join(map(str, box))}" for box in shares)]
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder / "boxes.csv"


@pytest.mark.parametrize(
    ("write", "format_name"),
    [(write_voc, "voc"), (write_odvg, "odvg"), (write_csv, "csv"), (write_openimages, "openimages")],
)
def test_corners_in_any_order_are_one_box(
    tmp_path: Path, write: Callable[[Path, list[list[float]]], Path], format_name: str
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    path = write(tmp_path, [[*first, *second] for first, second in CORNERS])
    (sample,) = read_dataset(path, format=format_name)
    boxes = sample.instances.boxes_xyxy_px
    assert len(boxes) == len(CORNERS)
    assert boxes == pytest.approx(boxes[:1].repeat(len(CORNERS), 0))
    one = 1 if format_name == "voc" else 0  # which counts pixels from 1
    assert boxes[0] == pytest.approx([4 - one, 6 - one, 20, 30], abs=1e-4)
