"""One record that is none is a finding, in every format, and the other images are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deixis.data.findings import Findings
from deixis.data.formats import read_dataset
from deixis.errors import DataError

WIDTH, HEIGHT = 64, 48
BOX = {"type": "bbox", "label_id": 0, "bbox": [1, 1, 9, 9], "group": 0}
XML_BOX = '<box label="x" xtl="1" ytl="1" xbr="9" ybr="9" {}/>'


def datumaro(size: Any) -> str:
    sizes = {"a": size, "b": [HEIGHT, WIDTH]}
    items = [{"id": name, "annotations": [BOX], "image": {"path": f"{name}.png", "size": sizes[name]}} for name in "ab"]
    return json.dumps({"categories": {"label": {"labels": [{"name": "x"}]}}, "items": items})


def cvat(size: str) -> str:
    sizes = {"a": size, "b": f'width="{WIDTH}" height="{HEIGHT}"'}
    images = [f'<image name="{name}.png" {sizes[name]}>{XML_BOX.format("")}</image>' for name in "ab"]
    return f"<annotations>{''.join(images)}</annotations>"


def cvat_track(frame: str) -> str:
    boxes = "".join(XML_BOX.format(f'frame="{number}"') for number in ("0", frame))
    return f"<annotations><track id='0' label='x'>{boxes}</track></annotations>"


def via_3(xy: Any) -> str:
    names = dict(enumerate("ab", start=1))
    regions = [{"vid": "1", "z": [], "xy": xy, "av": {"1": "0"}}, {"vid": "2", "xy": [2, 1, 1, 9, 9], "av": {"1": "0"}}]
    content = {
        "project": {"vid_list": ["1", "2"]},
        "attribute": {"1": {"aname": "class", "type": 4, "options": {"0": "x"}}},
        "file": {str(i): {"fid": i, "fname": f"{name}.png", "type": 2} for i, name in names.items()},
        "view": {str(i): {"fid_list": [i]} for i in names},
        "metadata": {f"{i}": row for i, row in enumerate(regions)},
    }
    return json.dumps(content)


def via_2(first: Any) -> str:
    region = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 9, "height": 9}, "region_attributes": {}}
    return json.dumps({"1": first, "2": {"filename": "b.png", "size": 1, "regions": [region]}})


def fiftyone(first: Any) -> str:
    found = {"_cls": "Detections", "detections": [{"label": "x", "bounding_box": [0.1, 0.1, 0.2, 0.2]}]}
    return json.dumps({"samples": [first, {"filepath": "b.png", "ground_truth": found}]})


def imagefolder(line: str) -> str:
    other = json.dumps({"file_name": "b.png", "objects": {"bbox": [[1, 1, 9, 9]], "category": ["x"]}})
    return f"{other}\n{line}\n"


def openimages(line: str) -> str:
    return f"ImageID,LabelName,XMin,YMin,XMax,YMax\nb,x,0.1,0.1,0.5,0.5\n{line}\n"


def label_studio(name: str) -> str:
    value = {"x": 1, "y": 1, "width": 9, "height": 9}
    results = [{"type": "rectanglelabels", "value": value | {"rectanglelabels": [one]}} for one in (name, "cat")]
    return json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": results}]}])


CASES: dict[str, tuple[str, str, str]] = {
    # the file, its content, and what is said of the record
    "datumaro, size of 0": ("train.json", datumaro([0, 5]), r"item 1: image size .* got \(0, 5\)"),
    "datumaro, negative size": ("train.json", datumaro([-1, 5]), r"item 1: image size"),
    "datumaro, size of text": ("train.json", datumaro(["x", 5]), r"item 1: height and width must be positive"),
    "datumaro, half a size of null": ("train.json", datumaro([None, 5]), r"item 1: height and width must be positive"),
    "cvat, no height": ("a.xml", cvat('width="64"'), r"image a.png: has no number 'height', got ''"),
    "cvat, no width": ("a.xml", cvat('height="48"'), r"image a.png: has no number 'width', got ''"),
    "cvat, size of 0": ("a.xml", cvat('width="0" height="48"'), r"image a.png: image size"),
    "cvat, size of text": ("a.xml", cvat('width="x" height="48"'), r"image a.png: has no number 'width', got 'x'"),
    "cvat, no name": ("a.xml", cvat("").replace('name="a.png"', 'id="7"'), r"image '7' .*has no name"),
    "cvat, frame of text": ("a.xml", cvat_track("x"), r"track 0: shape 2: has no number 'frame', got 'x'"),
    "cvat, negative frame": ("a.xml", cvat_track("-1"), r"track 0: shape 2: is in frame -1"),
    "via, points on a line": ("p.json", via_3([9, 1, 1, 2, 2, 3, 3]), r"region 1: .*not on one line"),
    "via, too few points": ("p.json", via_3([9, 1, 1]), r"region 1: a circle needs three points, got 1"),
    "via, no point": ("p.json", via_3([8]), r"region 1: has no point"),
    "via, points of text": ("p.json", via_3([8, 1, 1, "x", 3]), r"region 1: points must be finite numbers"),
    "via, numbers for a list": ("p.json", via_3(5), r"metadata 0"),
    "via, no file name": ("p.json", via_2({"regions": []}), r"'1' has no filename"),
    "fiftyone, null": ("samples.json", fiftyone(None), r"sample 1 must be an object"),
    "fiftyone, no file": ("samples.json", fiftyone({"filepath": 0}), r"sample 1 has no filepath, got '0'"),
    "imagefolder, no JSON": ("metadata.jsonl", imagefolder("{x"), r"row 2: malformed JSON"),
    "imagefolder, a list": ("metadata.jsonl", imagefolder("[1]"), r"row 2: holds a list"),
    "label_studio, blank label": ("tasks.json", label_studio(" "), r"task 1: region 1: has a label without text"),
    "openimages, cut short": ("b.csv", openimages("a,x,0.1"), r"line 3: has not 6 values"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*no attributes", "ignore:.*no picture is called")
def test_a_record_that_is_none_is_an_error_or_a_finding(tmp_path: Path, case: str) -> None:
    name, content, said = CASES[case]
    for picture in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / picture)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(tmp_path / name)
    assert "\n" not in str(caught.value)
    findings = Findings()
    dataset = read_dataset(tmp_path / name, findings=findings)
    assert sum(len(dataset[index].instances) for index in range(len(dataset))) >= 1
    assert [found.kind for found in findings.found] == ["record_malformed"]


def test_a_frame_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "frame_000000.png")
    (tmp_path / "a.xml").write_text(cvat_track("7"))
    findings = Findings()
    assert len(read_dataset(tmp_path / "a.xml", findings=findings)) == 1
    assert [(found.kind, found.file) for found in findings.found] == [("image_missing", "frame_000007")]
