"""COCO's panoptic annotations: things and stuff, crowds, and PNGs that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.errors import DataError

TEXT = '{"images": [], "annotations": [{"segments_info": []}], "categories": []}'
RECOGNISED = {
    "coco_panoptic": {"panoptic.json": TEXT, "panoptic/a.png": ""},
    "coco_panoptic in annotations": {"annotations/panoptic_val2017.json": TEXT},
}
CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
    {"id": 9, "name": "dog", "isthing": 1},
]
SEGMENTS = [
    {"id": 70_000, "category_id": 9, "iscrowd": 0},
    {"id": 3, "category_id": 1, "iscrowd": 1},
    {"id": 300, "category_id": 7, "iscrowd": 0},
]


def write(
    folder: Path, segments: Any = SEGMENTS, categories: Any = CATEGORIES, size: tuple[int, int] = (40, 20)
) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "panoptic_val").mkdir(exist_ok=True)
    Image.new("RGB", (40, 20)).save(folder / "images/a.jpg")
    ids = np.zeros((size[1], size[0]), np.int64)
    ids[2:6, 3:13], ids[10:12, 20:30], ids[15:, :] = 70_000, 3, 300
    pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "panoptic_val/a.png")
    content = {
        "images": [{"id": 4, "file_name": "a.jpg", "width": 40, "height": 20}],
        "annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": segments}],
        "categories": categories,
    }
    (folder / "panoptic_val.json").write_text(json.dumps(content))
    return folder


def example(folder: Path) -> None:
    names = ("cat", "red bird", "größe")
    categories = [{"id": number, "name": name, "isthing": 1} for number, name in zip((1, 7, 9), names, strict=True)]
    write(folder, categories=categories)


def test_things_are_objects_and_stuff_is_counted(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"left out 1 segments of 1 categories of stuff"):
        dataset = read_dataset(write(tmp_path))
    assert format_of(tmp_path) == format_of(tmp_path / "panoptic_val.json") == "coco_panoptic"
    assert dataset.vocabulary.names == ("cat", "dog")
    instances = dataset[0].instances
    assert instances.boxes_xyxy_px.tolist() == [[3, 2, 13, 6], [20, 10, 30, 12]]
    assert instances.class_ids.tolist() == [1, 0]
    assert instances.is_crowd.tolist() == [False, True]
    assert instances.areas_px.tolist() == [40, 20]
    assert instances.masks_rle is not None
    assert coco_mask.decode(instances.masks_rle[0])[2:6, 3:13].all()
    assert Path(str(dataset[0].image)).name == "a.jpg", "the picture, not the PNG of the same stem"


@pytest.mark.filterwarnings("ignore:.*categories of stuff")
def test_masks_can_be_left_out(tmp_path: Path) -> None:
    assert read_dataset(write(tmp_path), masks=False)[0].instances.masks_rle is None


def test_where_all_is_stuff_all_are_objects(tmp_path: Path) -> None:
    categories = [row | {"isthing": 0} for row in CATEGORIES]
    assert len(read_dataset(write(tmp_path, categories=categories))[0].instances) == 3


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "pixel": ({"segments": [{"id": 5, "category_id": 1}]}, r"segment 5 has no pixel in its PNG"),
    "category": ({"segments": [{"id": 3, "category_id": 8}]}, r"a segment needs an id and a known category_id"),
    "size": ({"size": (50, 20)}, r"a.png: has \(50, 20\) pixels .* its image \(40, 20\)"),
    "categories": ({"categories": []}, r"has no list of objects under 'categories'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(tmp_path: Path, fault: str) -> None:
    changes, said = FAULTS[fault]
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_missing_png_is_one_line_and_a_finding(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "panoptic_val/a.png").unlink()
    with pytest.raises(DataError, match=r"1 of 1 image files not found, the first is 'a.png'"):
        read_dataset(tmp_path)
    write(tmp_path, segments=[{"id": 5, "category_id": 1}])
    findings = Findings()
    with pytest.raises(DataError, match=r"lists no image that can be used"):
        read_dataset(tmp_path, findings=findings)
    assert [finding.kind for finding in findings.found] == ["mask_malformed"]
