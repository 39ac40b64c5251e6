"""CreateML: boxes by their centre, splits as folders, and the ways in which files differ."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.createml import read_createml
from deixis.data.formats.writing import write_dataset, write_parts
from deixis.errors import DataError
from deixis.records import Dataset

RECOGNISED = {
    "createml": {"_annotations.createml.json": '[{"image": "a.jpg", "annotations": [{"coordinates": {}}]}]'},
    "createml in splits": {"train/a.json": '[{"image": "a.jpg", "annotations": [{"coordinates": {}}]}]'},
}
SIZE = (100, 80)


def row(name: str, *boxes: tuple[Any, ...], label: Any = "cat", **more: Any) -> dict[str, Any]:
    keys = ("x", "y", "width", "height")
    objects = [{"label": label, "coordinates": dict(zip(keys, box, strict=True))} for box in boxes]
    return {"image": name, "annotations": objects, **more}


def write(folder: Path, rows: Any, images: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    folder.mkdir(exist_ok=True)
    for image in images:
        Image.new("RGB", SIZE).save(folder / image)
    (folder / "a.json").write_text(json.dumps(rows))
    return folder


def boxes(dataset: Dataset) -> list[Any]:
    return [dataset[i].instances.boxes_xyxy_px.round(6).tolist() for i in range(len(dataset))]


ROWS = [row("a.png", (25, 25, 30, 10), label="dog"), row("b.png", (70, 55, 40, 30), (20, 20, 20, 20)), row("c.png")]


def test_boxes_are_centres_and_images_without_objects_are_kept(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, ROWS, ("a.png", "b.png", "c.png")))
    assert boxes(dataset) == [[[10, 20, 40, 30]], [[50, 40, 90, 70], [10, 10, 30, 30]], []]
    assert dataset.vocabulary.names == ("cat", "dog")
    assert format_of(tmp_path) == format_of(tmp_path / "a.json") == "createml"


@pytest.mark.parametrize(
    ("older", "newer"), [("image", "imagefilename"), ("annotations", "annotation"), ("image", "imageURL")]
)
def test_other_names_of_keys(tmp_path: Path, older: str, newer: str) -> None:
    rows = [{newer if key == older else key: value for key, value in row.items()} for row in ROWS[:2]]
    assert boxes(read_dataset(write(tmp_path, rows))) == [[[10, 20, 40, 30]], [[50, 40, 90, 70], [10, 10, 30, 30]]]


def test_other_meanings_are_found_from_the_values(tmp_path: Path) -> None:
    rows = [row("a.png", (10, 20, 90, 70)), row("b.png", (0, 0, 100, 80), (50, 10, 90, 30))]
    with pytest.warns(UserWarning, match=r"boxes read as corners \[x1, y1, x2, y2\], for as centre and size"):
        assert boxes(read_dataset(write(tmp_path, rows)))[0] == [[10, 20, 90, 70]]
    with pytest.warns(UserWarning, match=r"boxes read as shares of the image, centre and size"):
        assert boxes(read_dataset(write(tmp_path, [row("a.png", (0.25, 0.3125, 0.3, 0.125))])))[0] == [[10, 20, 40, 30]]


def test_splits_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "train", ROWS[:1])
    write(tmp_path / "valid", ROWS[1:2])
    with pytest.raises(DataError, match=r"has the splits train, val; name one, as in .*#train"):
        read_dataset(tmp_path)
    assert boxes(read_dataset(f"{tmp_path}#train")) == [[[10, 20, 40, 30]]]
    assert len(read_dataset(tmp_path, split="valid")[0].instances) == 2
    with pytest.raises(DataError, match=r"has no split 'test', only train, val"):
        read_dataset(f"{tmp_path}#test")


def test_what_is_written_is_what_create_ml_takes(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path / "in", ROWS[:2]))
    written = write_dataset(dataset, tmp_path / "out", "createml")
    assert json.loads(written.read_text())[0] == ROWS[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_annotations.createml.json",
        "a.png",
        "b.png",
    ]
    parts = write_parts({"train": dataset, "val": dataset}, tmp_path / "parts", "createml")
    assert boxes(read_dataset(parts["val"])) == boxes(dataset)
    assert boxes(read_dataset(f"{tmp_path / 'parts'}#val")) == boxes(dataset)


FAULTS: dict[str, tuple[Any, str]] = {
    "no list": ({"image": "a"}, "holds a dict, not CreateML's list"),
    "no image": ([{"annotations": []}], "image 1: has no image file name"),
    "no label": ([row("a.png", (1, 2, 3, 4), label=" ")], "image 1, annotation 1: has no label"),
    "no number": (
        [row("a.png", (1, 2, None, 4))],
        "annotation 1: coordinates must be the numbers x, y, width and height",
    ),
    "missing": ([row("z.png", (1, 2, 3, 4))], "1 of 1 image files not found, the first is 'z.png'"),
    "empty": ([], "lists no image"),
    "objects": ([{"image": "a.png", "annotations": 5}], "annotations must be a list, got '5'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    rows, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read_createml(write(tmp_path, rows) / "a.json")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_a_finding(tmp_path: Path) -> None:
    findings = Findings()
    rows = [*ROWS[:2], row("a.png", (1, 2, None, 4)), row("z.png", (1, 2, 3, 4))]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dataset = read_createml(write(tmp_path, rows), findings=findings)
    assert len(dataset) == 2
    assert [finding.kind for finding in findings.found] == ["record_malformed", "image_missing"]
