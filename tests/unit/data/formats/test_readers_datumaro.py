"""Datumaro's JSON: kinds of annotations, groups, subsets."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import format_of, read_dataset
from deixis.errors import DataError
from deixis.records import Dataset

WIDTH, HEIGHT = 60, 40
RECOGNISED = {"datumaro": {"annotations/train.json": '{"categories": {"label": {"labels": []}}, "items": []}'}}


def write(folder: Path, *annotations: dict[str, Any], subset: str = "train", image: str = "images/train/a.png") -> Path:
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image)
    item = {"id": "a", "annotations": list(annotations), "image": {"path": "a.png", "size": [HEIGHT, WIDTH]}}
    labels = [{"name": name, "parent": ""} for name in ("dog", "cat")]
    file = folder / "annotations" / f"{subset}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"info": {}, "categories": {"label": {"labels": labels}}, "items": [item]}))
    return file


def quietly(path: Path | str, **options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_dataset(path, **options)


BOX = {"id": 0, "type": "bbox", "label_id": 1, "bbox": [10.0, 5.0, 20.0, 10.5], "group": 0, "attributes": {}}
POLYGON = {"type": "polygon", "label_id": 0, "points": [10.0, 5.0, 30.0, 5.0, 30.0, 25.0], "group": 0}


def test_boxes_polygons_masks_and_ellipses(tmp_path: Path) -> None:
    file = write(tmp_path, BOX, {**BOX, "attributes": {"is_crowd": True}})
    assert format_of(file) == format_of(tmp_path) == "datumaro"
    dataset = quietly(tmp_path)
    assert dataset.vocabulary.names == ("dog", "cat")
    assert dataset[0].instances.boxes_xyxy_px.tolist() == [[10, 5, 30, 15.5]] * 2
    assert dataset[0].instances.is_crowd.tolist() == [False, True]
    bitmap = np.zeros((HEIGHT, WIDTH), np.uint8, "F")
    bitmap[3:9, 5:8] = 1
    rle = coco_mask.encode(bitmap)
    mask = {"type": "mask", "label_id": 0, "rle": {"counts": rle["counts"].decode(), "size": rle["size"]}}
    ellipse = {"type": "ellipse", "label_id": 0, "points": [10, 10, 30, 20]}
    objects = quietly(write(tmp_path, POLYGON, mask, ellipse))[0].instances
    np.testing.assert_allclose(objects.boxes_xyxy_px, [[10, 5, 30, 25], [5, 3, 8, 9], [10, 10, 30, 20]])
    np.testing.assert_array_equal(coco_mask.decode(objects.masks_rle[1]), bitmap)


def test_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    other = {**POLYGON, "points": [40.0, 5.0, 50.0, 5.0, 50.0, 15.0], "group": 7}
    box = {**BOX, "label_id": 0, "group": 7, "bbox": [0, 0, 60, 40]}
    objects = quietly(write(tmp_path, {**POLYGON, "group": 7}, other, box, {**BOX, "group": 7}))[0].instances
    assert objects.boxes_xyxy_px.tolist() == [[10, 5, 50, 25], [10, 5, 30, 15.5]], "another label is another object"


def test_an_item_may_be_called_0(tmp_path: Path) -> None:
    file = write(tmp_path, BOX, image="images/train/0.png")
    content = json.loads(file.read_text())
    content["items"] = [{"id": 0, "annotations": [BOX]}]
    file.write_text(json.dumps(content))
    assert quietly(file)[0].image == tmp_path / "images" / "train" / "0.png"


def test_subsets_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, BOX)
    write(tmp_path, subset="val", image="images/val/a.png")
    assert [len(quietly(f"{tmp_path}#{split}")[0].instances) for split in ("train", "validation")] == [1, 0]
    assert quietly(f"{tmp_path}#val")[0].image == tmp_path / "images" / "val" / "a.png"
    with pytest.raises(DataError, match=r"several subsets, or none; it has train, val; name one"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"no subset 'test'; it has train, val"):
        read_dataset(f"{tmp_path}#test")


def test_other_kinds_are_counted_and_faults_named(tmp_path: Path) -> None:
    caption = {"type": "caption", "caption": "a cat"}
    with pytest.warns(UserWarning, match=r"left out 1 caption; bbox, polygon, mask, ellipse are read"):
        assert len(read_dataset(write(tmp_path, caption, BOX))[0].instances) == 1
    for wrong, said in (
        ({**BOX, "label_id": 9}, "has label_id 9, there are 2 labels"),
        ({**BOX, "bbox": [1, 2, 3]}, "expected 4 finite numbers"),
        ({**POLYGON, "points": [1, 2]}, "polygon needs three points or more, got 1"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": "1", "size": [1, 1]}}, "has size"),
    ):
        with pytest.raises(DataError, match=said):
            read_dataset(write(tmp_path, wrong))
