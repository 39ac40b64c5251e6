"""VIA: every version and shape, and which region attribute is the class."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.via.read import read_via
from deixis.data.formats.writing import write_dataset
from deixis.errors import DataError
from deixis.records import Dataset

RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 10}
POLYGON = {"name": "polygon", "all_points_x": [50, 90, 90, 50], "all_points_y": [40, 40, 70, 70]}
CIRCLE = {"name": "circle", "cx": 50, "cy": 40, "r": 10}
ELLIPSE = {"name": "ellipse", "cx": 50, "cy": 40, "rx": 20, "ry": 10}
TURNED = {"name": "ellipse", "cx": 50, "cy": 40, "rx": 20, "ry": 10, "theta": math.pi / 2}
POINT = {"name": "point", "cx": 5, "cy": 5}
LINE = {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [1, 9]}
ONE = '{"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": [], "file_attributes": {}}}'
RECOGNISED = {
    "via": {"via_region_data.json": ONE, "a.jpg": ""},
    "via project": {"via_project.json": f'{{"_via_settings": {{}}, "_via_img_metadata": {ONE}}}'},
    "via table": {"via.csv": "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n"},
    "via of version 3": {"p.json": '{"project": {"vid_list": []}, "config": {}, "file": {}, "metadata": {}}'},
}


def region(shape: Any, **values: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": values}


def image(name: str, *regions: Any) -> dict[str, Any]:
    return {"filename": name, "size": 9, "regions": list(regions), "file_attributes": {}}


CAT, DOG = region(RECT, kind="cat"), region(POLYGON, kind="dog")
IMAGES = {"a.png9": image("a.png", CAT), "b.png9": image("b.png", DOG)}


def write(folder: Path, content: Any, name: str = "via.json") -> Path:
    for picture in ("a.png", "b.png"):
        Image.new("RGB", (100, 80)).save(folder / picture)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def boxes(dataset: Dataset) -> list[Any]:
    return [dataset[i].instances.boxes_xyxy_px.round(6).tolist() for i in range(len(dataset))]


def table() -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    names = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    rows.writerow([*names, "region_shape_attributes", "region_attributes"])
    for name, one in (("a.png", CAT), ("b.png", DOG)):
        rows.writerow([name, 9, "{}", 1, 0, *map(json.dumps, one.values())])
    return text.getvalue()


VERSION_3 = {
    "project": {"pid": "x", "vid_list": ["1", "2"]},
    "config": {},
    "attribute": {"1": {"aname": "kind", "type": 4, "options": {"0": "cat", "1": "dog"}, "default_option_id": ""}},
    "file": {
        "1": {"fid": 1, "fname": "a.png", "type": 2, "loc": 1, "src": ""},
        "2": {"fid": 2, "fname": "b.png", "type": 2, "loc": 1, "src": ""},
    },
    "metadata": {
        "1_x": {"vid": "1", "flg": 0, "z": [], "xy": [2, 10, 20, 30, 10], "av": {"1": "0"}},
        "2_x": {"vid": "2", "flg": 0, "z": [], "xy": [7, 50, 40, 90, 40, 90, 70, 50, 70], "av": {"1": "1"}},
    },
    "view": {"1": {"fid_list": [1]}, "2": {"fid_list": [2]}},
}
PROJECT = {"_via_settings": {}, "_via_img_metadata": IMAGES, "_via_attributes": {"region": {}, "file": {}}}
FIRST = {key: {**value, "regions": {"0": value["regions"][0]}} for key, value in IMAGES.items()}
VERSIONS = {"via.json": IMAGES, "project.json": PROJECT, "via.csv": table(), "via3.json": VERSION_3, "via1.json": FIRST}


@pytest.mark.parametrize("name", VERSIONS)
def test_every_version_reads_alike(tmp_path: Path, name: str) -> None:
    write(tmp_path, VERSIONS[name], name)
    assert format_of(tmp_path) == format_of(tmp_path / name) == "via"
    dataset = read_dataset(tmp_path / name)
    assert boxes(dataset) == [[[10, 20, 40, 30]], [[50, 40, 90, 70]]]
    assert dataset.vocabulary.names == ("cat", "dog")
    assert dataset[0].instances.masks_rle is None
    assert dataset[1].instances.masks_rle is not None
    assert int(coco_mask.area(dataset[1].instances.masks_rle[0])) == 1200
    assert read_dataset(tmp_path, masks=False)[1].instances.masks_rle is None


@pytest.mark.parametrize(
    ("shape", "box", "area"),
    [
        (CIRCLE, [40, 30, 60, 50], math.pi * 100),
        (ELLIPSE, [30, 30, 70, 50], math.pi * 200),
        (TURNED, [40, 20, 60, 60], math.pi * 200),
    ],
)
def test_round_shapes(tmp_path: Path, shape: Any, box: list[float], area: float) -> None:
    sample = read_dataset(write(tmp_path, {"a": image("a.png", region(shape, kind="cat"))}))[0]
    np.testing.assert_allclose(sample.instances.boxes_xyxy_px, [box], atol=1e-6)
    np.testing.assert_allclose(sample.instances.areas_px, [area], rtol=0.01)
    assert sample.instances.masks_rle is not None
    assert int(coco_mask.area(sample.instances.masks_rle[0])) == pytest.approx(area, rel=0.05)


def test_shapes_of_version_3_by_extreme_points(tmp_path: Path) -> None:
    rectangle = {"vid": "1", "z": [], "xy": [8, 10, 25, 30, 20, 40, 25, 30, 30], "av": {"1": "0"}}
    circle = {"vid": "2", "z": [], "xy": [9, 40, 40, 60, 40, 50, 50], "av": {"1": "1"}}
    film = {"vid": "1", "z": [1.5, 2.0], "xy": [], "av": {"1": "0"}}
    write(tmp_path, VERSION_3 | {"metadata": {"1": rectangle, "2": circle, "3": film}})
    with pytest.warns(UserWarning, match=r"left out 1 annotations of films or whole images"):
        dataset = read_dataset(tmp_path)
    np.testing.assert_allclose(dataset[0].instances.boxes_xyxy_px, [[10, 20, 40, 30]])
    np.testing.assert_allclose(dataset[1].instances.boxes_xyxy_px, [[40, 30, 60, 50]], atol=1e-6)


def test_points_and_lines_are_counted(tmp_path: Path) -> None:
    regions = [CAT, region(POINT, kind="cat"), region(LINE, kind="cat"), region(LINE)]
    with pytest.warns(UserWarning, match=r"left out 3 regions that enclose nothing \(1 points, 2 polylines\)"):
        assert len(read_dataset(write(tmp_path, {"a": image("a.png", *regions)}))[0].instances) == 1


def test_the_class_is_found_among_attributes_and_reported(tmp_path: Path) -> None:
    regions = [region(RECT, colour="red", label="cat"), region(RECT, colour="blue", label="dog")]
    with pytest.warns(UserWarning, match=r"the class is the region attribute 'label', not colour"):
        assert read_dataset(write(tmp_path, {"a": image("a.png", *regions)})).vocabulary.names == ("cat", "dog")
    regions = [region(RECT, colour="red", x1="cat"), region(RECT, colour="", x1="dog"), region(RECT, x1="dog")]
    with pytest.warns(UserWarning, match=r"the class is the region attribute 'x1', not colour"):
        assert read_dataset(write(tmp_path, {"a": image("a.png", *regions)})).vocabulary.names == ("cat", "dog")
    regions = [region(RECT, type="sheep", **{"class": "cat"}), region(RECT, type="cow", **{"class": "dog"})]
    with pytest.warns(UserWarning, match=r"the class is the region attribute 'class', not type"):
        assert read_dataset(write(tmp_path, {"a": image("a.png", *regions)})).vocabulary.names == ("cat", "dog")
    with pytest.warns(UserWarning, match=r"regions have no attributes; every object is 'object'"):
        assert read_dataset(write(tmp_path, {"a": image("a.png", region(RECT))})).vocabulary.names == ("object",)


def test_several_ticked_values_are_several_objects_and_options_keep_their_order(tmp_path: Path) -> None:
    ticked = region(RECT, kind={"dog": True, "cat": True, "bird": False})
    options = {"region": {"kind": {"type": "checkbox", "options": {"dog": "", "cat": "", "bird": ""}}}}
    content = {"_via_settings": {}, "_via_img_metadata": {"a": image("a.png", ticked)}, "_via_attributes": options}
    dataset = read_dataset(write(tmp_path, content))
    assert dataset.vocabulary.names == ("dog", "cat", "bird")
    assert dataset[0].instances.class_ids.tolist() == [0, 1]


def test_masks_and_names_come_back_from_a_written_project(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    dataset = read_dataset(write(tmp_path / "in", {"b": image("b.png", DOG, region(CIRCLE, kind="cat"))}))
    written = write_dataset(dataset, tmp_path / "out", "via")
    again = read_dataset(written)
    assert again.vocabulary.names == dataset.vocabulary.names
    for mine, theirs in zip(dataset[0].instances.masks_rle or (), again[0].instances.masks_rle or (), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(mine), coco_mask.decode(theirs))
    content = json.loads(written.read_text())
    assert content["_via_image_id_list"] == list(content["_via_img_metadata"])
    (found,) = content["_via_img_metadata"].values()
    assert content["_via_image_id_list"] == [f"b.png{(tmp_path / 'out/images/b.png').stat().st_size}"]
    assert found["regions"][0]["region_attributes"] == {"class": "dog"}


FAULTS: dict[str, tuple[Any, str]] = {
    "class": ({"a": image("a.png", CAT, region(RECT))}, r"a.png: region 2: has no value of 'kind'"),
    "shape": ({"a": image("a.png", region({"name": "star"}, kind="x"))}, r"region 1: shape 'star' is not one of rect"),
    "number": ({"a": image("a.png", region({**RECT, "x": "1"}, kind="x"))}, r"region 1: x must be a number, got '1'"),
    "points": (
        {"a": image("a.png", region({"name": "polygon", "all_points_x": [1], "all_points_y": []}, kind="x"))},
        r"all_points_x and all_points_y must be lists of the same length",
    ),
    "far": (
        {"a": image("a.png", region({**POLYGON, "all_points_x": [1e30, 1, 2, 3]}, kind="x"))},
        r"region 1: has a point at 1e\+30",
    ),
    "filename": ({"a": {"regions": []}}, r"'a' has no filename"),
    "regions": ({"a": {"filename": "a.png", "regions": 5}}, r"a.png: regions must be a list"),
    "none": ({"_via_img_metadata": {}}, r"lists no image"),
    "missing": ({"a": image("z.png", CAT)}, r"1 of 1 image files not found, the first is 'z.png'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    content, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read_via(write(tmp_path, content) / "via.json")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_a_finding(tmp_path: Path) -> None:
    findings = Findings()
    dataset = read_via(write(tmp_path, {"a": image("a.png", CAT, region({}))}), findings=findings)
    assert len(dataset[0].instances) == 1
    assert [finding.kind for finding in findings.found] == ["record_malformed"]
