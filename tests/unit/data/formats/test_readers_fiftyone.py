"""FiftyOne's exports: fields, relative boxes, masks as compressed arrays, polylines, tags."""

from __future__ import annotations

import base64
import io
import json
import warnings
import zlib
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
RECOGNISED = {
    "fiftyone": {"samples.json": '{"samples": [{"filepath": "data/a.jpg"}]}', "metadata.json": "{}"},
    "fiftyone labels": {"labels.json": '{"classes": ["cat"], "labels": {"a": []}}', "data/a.jpg": ""},
}


def write(folder: Path, name: str, content: Any) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for picture in "ab":
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "data" / f"{picture}.png")
    (folder / name).write_text(json.dumps(content))
    return folder / name


def packed(mask: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, mask)
    return {"$binary": {"base64": base64.b64encode(zlib.compress(file.getvalue())).decode(), "subType": "00"}}


def quietly(path: Path | str, **options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_dataset(path, **options)


DETECTION = {"_cls": "Detection", "label": "cat", "bounding_box": [0.5, 0.25, 0.25, 0.5], "confidence": 0.5}
BOX = [30.0, 10.0, 45.0, 30.0]


def sample(
    *found: dict[str, Any], name: str = "data/a.png", field: str = "ground_truth", **more: Any
) -> dict[str, Any]:
    return {"filepath": name, field: {"_cls": "Detections", "detections": list(found)}, **more}


def test_detections_are_shares_of_the_image(tmp_path: Path) -> None:
    samples = [sample(DETECTION), {"filepath": "data/b.png", "ground_truth": None}]
    file = write(tmp_path, "samples.json", {"samples": samples})
    assert format_of(file) == format_of(tmp_path) == "fiftyone"
    dataset = quietly(file)
    assert dataset[0].instances.boxes_xyxy_px.tolist() == [BOX]
    assert dataset[0].instances.scores.tolist() == [0.5]
    assert len(dataset[1].instances) == 0
    (tmp_path / "metadata.json").write_text('{"classes": {"ground_truth": ["dog", "cat"]}, "default_classes": []}')
    assert quietly(tmp_path).vocabulary.names == ("dog", "cat")


def test_masks_lie_in_their_boxes(tmp_path: Path) -> None:
    mask = np.zeros((20, 15), bool)
    mask[3:, 2:] = True
    small = np.array([[1, 0], [0, 1]], np.uint8)
    found = [{**DETECTION, "mask": packed(mask)}, {**DETECTION, "mask": packed(np.asfortranarray(small))}]
    objects = quietly(write(tmp_path, "samples.json", {"samples": [sample(*found)]}))[0].instances
    assert objects.boxes_xyxy_px.tolist() == [[32, 13, 45, 30], BOX]
    first, second = (coco_mask.decode(rle) for rle in objects.masks_rle)
    np.testing.assert_array_equal(first[10:30, 30:45], mask)
    assert second[10:20, 30:37].all()
    assert not second[10:20, 38:45].any(), "stretched to the box"
    assert quietly(tmp_path, masks=False)[0].instances.masks_rle is None


@pytest.mark.parametrize("mask", ["x", "eJw=", {"$binary": {}}, 5, packed(np.zeros((2, 2, 2), bool))])
def test_masks_that_cannot_be_read_are_errors(tmp_path: Path, mask: Any) -> None:
    file = write(tmp_path, "samples.json", {"samples": [sample({**DETECTION, "mask": mask})]})
    with pytest.raises(DataError, match=r"sample a\.png: label 1: has a mask that cannot be read"):
        read_dataset(file)


def test_closed_polylines_and_fields(tmp_path: Path) -> None:
    points = [[[0.5, 0.25], [0.75, 0.25], [0.75, 0.75]]]
    lines = [{"label": "cat", "points": points, "closed": True}, {"label": "cat", "points": points, "closed": False}]
    row = {"filepath": "data/a.png", "shapes": {"_cls": "Polylines", "polylines": lines}}
    with pytest.warns(UserWarning, match="left out 1 lines that enclose nothing"):
        objects = read_dataset(write(tmp_path, "samples.json", {"samples": [row]}))[0].instances
    assert objects.boxes_xyxy_px.tolist() == [BOX]
    assert objects.masks_rle is not None
    two = {**sample(DETECTION, field="model_a"), **sample(field="model_b")}
    with pytest.raises(DataError, match="found model_a, model_b; export only one field"):
        read_dataset(write(tmp_path, "samples.json", {"samples": [two]}))


@pytest.mark.parametrize("masks", [True, False])
def test_parts_that_overlap_count_once(tmp_path: Path, masks: bool) -> None:
    part = [[0.5, 0.25], [0.75, 0.25], [0.75, 0.75], [0.5, 0.75]]
    line = {"_cls": "Polyline", "label": "cat", "points": [part, part], "closed": True, "filled": True}
    row = {"filepath": "data/a.png", "shapes": {"_cls": "Polylines", "polylines": [line]}}
    objects = quietly(write(tmp_path, "samples.json", {"samples": [row]}), masks=masks)[0].instances
    assert objects.areas_px.tolist() == [300]


def test_tags_are_splits_and_videos_are_named(tmp_path: Path) -> None:
    samples = [sample(DETECTION, tags=["train"]), sample(name="data/b.png", tags=["validation"])]
    file = write(tmp_path, "samples.json", {"samples": samples})
    assert len(quietly(f"{file}#val")[0].instances) == 0
    with pytest.raises(DataError, match=r"no sample has the tag 'test', only train, validation"):
        read_dataset(f"{file}#test")
    with pytest.raises(DataError, match="sample 1 is a video"):
        read_dataset(write(tmp_path, "samples.json", {"samples": [sample(name="a.mp4")]}))


def test_the_short_form_with_names_or_numbers(tmp_path: Path) -> None:
    labels = {"a": [{"label": 1, "bounding_box": [0.5, 0.25, 0.25, 0.5]}], "b": None}
    dataset = quietly(write(tmp_path, "labels.json", {"classes": ["dog", "cat"], "labels": labels}))
    assert dataset.vocabulary.names == ("dog", "cat")
    assert dataset[0].instances.class_ids.tolist() == [1]
    assert [len(dataset[i].instances) for i in range(2)] == [1, 0]
    with pytest.raises(DataError, match="has no list of boxes; export detections"):
        read_dataset(write(tmp_path, "labels.json", {"classes": ["dog"], "labels": {"a": "dog"}}))
    with pytest.raises(DataError, match="bounding_box that is not four finite numbers"):
        read_dataset(
            write(tmp_path, "labels.json", {"classes": ["x"], "labels": {"a": [{"label": "x", "bounding_box": [1]}]}})
        )
