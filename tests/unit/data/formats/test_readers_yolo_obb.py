"""YOLO's turned boxes: corners of what was drawn turned, upright ones of plain boxes, and how both come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.shared.annotated_objects import corners_of, turned
from deixis.data.formats.writing import not_kept, write_dataset, write_parts
from deixis.geometry.rle import polygons_rle
from deixis.records import Instances, Sample, SampleList, Vocabulary

RECOGNISED = {"yolo_obb": {"data.yaml": "task: obb\ntrain: images\nnames: [cat]\n"}}
SIZE_HW = (60, 200)
TURNED = turned(corners_of(80, 20, 50, 16), (105.0, 28.0), 30.0)


def dataset(tmp_path: Path, *corners: np.ndarray) -> SampleList:
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "a.png")
    masks = [polygons_rle([points.reshape(-1)], SIZE_HW) for points in corners]
    boxes = [[*points.min(0), *points.max(0)] for points in corners]
    objects = Instances.build(boxes, [1] * len(boxes), masks_rle=masks)
    vocabulary = Vocabulary(("cat", "long ship"))
    return SampleList((Sample(tmp_path / "a.png", SIZE_HW, objects, vocabulary, 1),), vocabulary)


def written_corners(folder: Path) -> np.ndarray:
    lines = (folder / "labels/train/a.txt").read_text().splitlines()
    numbers = np.array([line.split() for line in lines], float)
    assert (numbers[:, 0] == 1).all()
    return numbers[:, 1:].reshape(-1, 4, 2) * SIZE_HW[::-1]


def far(one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance of a corner from the nearest of the other rectangle."""
    return float(np.abs(one[:, None] - other[None]).max(2).min(1).max())


def test_what_was_drawn_turned_is_written_turned(tmp_path: Path) -> None:
    source = dataset(tmp_path, TURNED)
    file = write_dataset(source, tmp_path / "out", "yolo_obb")
    (corners,) = written_corners(tmp_path / "out")
    assert far(corners, TURNED) < 0.75
    assert far(corners, corners_of(80, 20, 50, 16)) > 5, "an upright one would be told apart"
    assert yaml.safe_load(file.read_text())["names"] == {0: "cat", 1: "long ship"}
    assert any("shapes of 1 objects: each becomes the smallest turned" in line for line in not_kept(source, "yolo_obb"))


def test_of_other_shapes_nothing_stands_out(tmp_path: Path) -> None:
    shape = np.array([[80.0, 10], [120, 10], [120, 20], [100, 20], [100, 45], [80, 45]])
    write_dataset(dataset(tmp_path, shape), tmp_path / "out", "yolo_obb")
    assert far(written_corners(tmp_path / "out")[0], corners_of(80, 10, 40, 35)) < 1e-3


def test_they_come_back_as_boxes_and_as_polygons(tmp_path: Path) -> None:
    file = write_dataset(dataset(tmp_path, TURNED), tmp_path / "out", "yolo_obb")
    assert format_of(file) == format_of(file.parent) == "yolo_obb"
    plain = read_dataset(file)[0].instances
    np.testing.assert_allclose(plain.boxes_xyxy_px[0], [*TURNED.min(0), *TURNED.max(0)], atol=0.75)
    assert plain.masks_rle is None
    mask = read_dataset(file, format="yolo")[0].instances.masks_rle
    assert mask is not None
    meant = polygons_rle([TURNED.reshape(-1)], SIZE_HW)
    assert coco_mask.iou(list(mask), [meant], [0])[0, 0] > 0.95


def test_upright_corners_without_masks_and_where_they_are_not_asked_for(tmp_path: Path) -> None:
    source = dataset(tmp_path, TURNED)
    upright = [*TURNED.min(0), *TURNED.max(0)]
    write_dataset(source, tmp_path / "asked", "yolo_obb", masks=False)
    np.testing.assert_allclose(written_corners(tmp_path / "asked")[0][[0, 2]].reshape(-1), upright)
    boxes = source.samples[0].instances.boxes_xyxy_px
    plain = SampleList((source.samples[0].evolve(instances=Instances.build(boxes, [1])),), source.vocabulary)
    assert write_parts({"val": plain}, tmp_path / "plain", "yolo_obb") == {"val": f"{tmp_path}/plain/data.yaml#val"}
    np.testing.assert_allclose(read_dataset(tmp_path / "plain")[0].instances.boxes_xyxy_px[0], upright)


def test_corners_stay_inside_the_image(tmp_path: Path) -> None:
    write_dataset(dataset(tmp_path, TURNED - [100, 10]), tmp_path / "out", "yolo_obb")
    (corners,) = written_corners(tmp_path / "out")
    assert corners.min() >= 0
    assert corners[:, 0].max() <= SIZE_HW[1]


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_turned_boxes_are_no_poses(tmp_path: Path, degrees: float) -> None:
    """In the right lower half their numbers fit as a box and two points in it; every line here does."""
    both = [turned(corners_of(x, 34, 40, 16), (x + 20.0, 42.0), degrees) for x in (110, 120)]
    file = write_dataset(dataset(tmp_path, *both), tmp_path / "out", "yolo_obb")
    assert len(read_dataset(file)[0].instances) == len(read_dataset(file, format="yolo")[0].instances) == 2


def test_turned_boxes_that_reach_out_of_their_image_are_cut(tmp_path: Path) -> None:
    source = dataset(tmp_path, TURNED)
    file = write_dataset(source, tmp_path / "out", "yolo_obb")
    outside = (turned(corners_of(170, 40, 50, 16), (195.0, 48.0), 30.0) / SIZE_HW[::-1]).reshape(-1).tolist()
    (tmp_path / "out/labels/train/a.txt").write_text(f"1 {' '.join(map(str, outside))}\n")
    for format in ("yolo", "yolo_obb"):
        (box,) = read_dataset(file, format=format)[0].instances.boxes_xyxy_px
        assert box[2] == SIZE_HW[1]
