"""Supervisely: its shapes, its folders, and class names from `meta.json`."""

from __future__ import annotations

import base64
import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.errors import DataError

ANN = '{"description": "", "tags": [], "size": {"height": 8, "width": 9}, "objects": [{"classTitle": "cat"}]}'
RECOGNISED = {
    "supervisely": {"ds/ann/a.jpg.json": ANN, "meta.json": '{"classes": [{"title": "cat"}]}', "ds/img/a.jpg": ""},
    "supervisely data set": {"ann/a.jpg.json": ANN, "img/a.jpg": ""},
}


def shape(kind: str | None, exterior: Any, interior: Any = (), title: str = "cat", **more: Any) -> dict[str, Any]:
    named = {} if kind is None else {"geometryType": kind}
    return {"classTitle": title, "points": {"exterior": exterior, "interior": list(interior)}, **named, **more}


def bitmap(pixels: Any, origin: Any, mode: str = "L") -> dict[str, Any]:
    image = Image.fromarray(np.array(pixels, np.uint8) * 255)
    if mode == "P":
        image = Image.fromarray(np.array(pixels, np.uint8))
        image.putpalette([0, 0, 0, 255, 255, 255])
    if mode == "RGBA":
        alpha = image
        image = Image.new("RGBA", image.size, (255, 0, 0, 0))
        image.putalpha(alpha)
    file = BytesIO()
    image.save(file, "PNG", **({"transparency": 0} if mode == "P" else {}))
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"data": data, "origin": origin}}


RECTANGLE = shape("rectangle", [[40, 30], [10, 20]])
SQUARE, HOLE = [[50, 40], [90, 40], [90, 70], [50, 70]], [[60, 50], [70, 50], [70, 60], [60, 60]]


def write(project: Path, *objects: Any, name: str = "ds", image: str = "a.png", classes: Any = ("dog", "cat")) -> Path:
    folder = project / name
    for part in ("ann", "img"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 80)).save(folder / "img" / image)
    content = {"description": "", "tags": [], "size": {"height": 80, "width": 100}, "objects": list(objects)}
    (folder / "ann" / f"{image}.json").write_text(json.dumps(content))
    if classes is not None:
        (project / "meta.json").write_text(json.dumps({"classes": [{"title": title} for title in classes]}))
    return project


def example(folder: Path) -> None:
    titles = ("cat", "red bird", "größe")
    for number, title in enumerate(titles):
        write(folder, shape("rectangle", [[40, 30], [10, 20]], title=title), image=f"{number}.png", classes=titles)


@pytest.mark.parametrize("place", [".", "ds", "ds/ann", "ds/ann/a.png.json"])
def test_a_project_is_read_from_any_of_its_places(tmp_path: Path, place: str) -> None:
    write(tmp_path, RECTANGLE)
    assert format_of(tmp_path / place) == "supervisely"
    dataset = read_dataset(tmp_path / place)
    assert dataset.vocabulary.names == ("dog", "cat")
    assert dataset[0].instances.boxes_xyxy_px.tolist() == [[10, 20, 40, 30]]
    assert dataset[0].instances.class_ids.tolist() == [1]


@pytest.mark.parametrize("kind", ["polygon", None])
def test_polygons_have_holes(tmp_path: Path, kind: str | None) -> None:
    instances = read_dataset(write(tmp_path, shape(kind, SQUARE, [HOLE])))[0].instances
    assert instances.boxes_xyxy_px.tolist() == [[50, 40, 90, 70]]
    assert instances.areas_px.tolist() == [1100]
    assert instances.masks_rle is not None
    pixels = coco_mask.decode(instances.masks_rle[0])
    assert int(pixels.sum()) == 1100
    assert not pixels[50:60, 60:70].any()


def test_holes_that_overlap_count_once(tmp_path: Path) -> None:
    instances = read_dataset(write(tmp_path, shape("polygon", SQUARE, [HOLE, HOLE])))[0].instances
    assert instances.areas_px.tolist() == [1100]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_bitmaps(tmp_path: Path, mode: str) -> None:
    pixels = [[0, 1, 1], [0, 0, 1]]
    instances = read_dataset(write(tmp_path, bitmap(pixels, [30, 4], mode)))[0].instances
    assert instances.boxes_xyxy_px.tolist() == [[31, 4, 33, 6]]
    assert instances.areas_px.tolist() == [3]
    assert instances.masks_rle is not None
    np.testing.assert_array_equal(coco_mask.decode(instances.masks_rle[0])[4:6, 30:33], pixels)
    assert read_dataset(tmp_path, masks=False)[0].instances.boxes_xyxy_px.tolist() == [[31, 4, 33, 6]]


def test_points_and_lines_are_counted_and_images_without_objects_kept(tmp_path: Path) -> None:
    write(tmp_path, shape("point", [[1, 1]]), shape("line", [[1, 1], [5, 5]]), RECTANGLE)
    write(tmp_path, image="b.png")
    with pytest.warns(UserWarning, match=r"left out 2 objects that enclose nothing \(1 lines, 1 points\)"):
        dataset = read_dataset(tmp_path)
    assert [len(dataset[i].instances) for i in range(2)] == [1, 0]


def test_data_sets_of_a_project(tmp_path: Path) -> None:
    write(tmp_path, RECTANGLE, name="morning")
    write(tmp_path, RECTANGLE, RECTANGLE, name="evening")
    assert len(read_dataset(tmp_path)) == 2
    assert len(read_dataset(f"{tmp_path}#evening")[0].instances) == 2
    write(tmp_path / "other", RECTANGLE, name="train")
    write(tmp_path / "other", RECTANGLE, name="val")
    with pytest.raises(DataError, match=r"has the splits train, val; name one"):
        read_dataset(tmp_path / "other")
    assert len(read_dataset(tmp_path / "other", split="val")) == 1
    with pytest.raises(DataError, match=r"has no data set 'test', only train, val"):
        read_dataset(tmp_path / "other", split="test")


def test_without_meta_names_are_those_of_the_objects(tmp_path: Path) -> None:
    assert read_dataset(write(tmp_path, RECTANGLE, classes=None)).vocabulary.names == ("cat",)


BOMB = base64.b64encode(zlib.compress(bytes(1 << 27))).decode()
FAULTS: dict[str, tuple[Any, str]] = {
    "title": ({"points": {}}, r"object 1: has no classTitle"),
    "kind": (shape("blob", SQUARE), r"object 1: geometryType 'blob' is not one of rectangle"),
    "points": (shape("polygon", [[1, 2], [3, None], [4, 5]]), r"object 1: points must be finite numbers"),
    "few": (shape("polygon", [[1, 2], [3, 4]]), r"object 1: a polygon needs three points"),
    "no points": ({"classTitle": "cat", "geometryType": "polygon", "points": {}}, r"points must be a list of"),
    "far": (shape("polygon", [[1, 2], [1e30, 4], [5, 6]]), r"object 1: has a point at 1e\+30"),
    "outside": (bitmap([[1, 1]], [99, 79]), r"object 1: has a bitmap of \(2, 1\) at \(99, 79\), outside its image"),
    "text": ({**bitmap([[1]], [0, 0]), "bitmap": {"data": "!", "origin": [0, 0]}}, r"no zlib data as base64"),
    "bomb": ({**bitmap([[1]], [0, 0]), "bitmap": {"data": BOMB, "origin": [0, 0]}}, r"has a bitmap that is no picture"),
    "empty": (bitmap([[0]], [0, 0]), r"has a bitmap without a pixel"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    thing, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(write(tmp_path, thing))
    assert "\n" not in str(caught.value)
    findings = Findings()
    write(tmp_path, RECTANGLE, image="b.png")
    assert len(read_dataset(tmp_path, findings=findings)) == 2
    assert [finding.kind for finding in findings.found] == ["record_malformed"]


def test_a_missing_or_other_image_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, RECTANGLE)
    Image.new("RGB", (80, 100)).save(tmp_path / "ds/img/a.png")
    with pytest.raises(DataError, match=r"annotated as 100x80 pixels \(width x height\) but has 80x100"):
        read_dataset(tmp_path)
    (tmp_path / "ds/img/a.png").unlink()
    with pytest.raises(DataError, match=r"1 of 1 image files not found, the first is 'a.png'"):
        read_dataset(tmp_path)
