"""Segmentations as users hold them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats import read_dataset
from deixis.data.inputs.pictures import Picture
from deixis.errors import DataError, OptionError
from deixis.geometry.rle import bitmap_rle
from deixis.refer_records import Segmentation
from deixis.results.segmentations import Segmentations


def bitmap(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = [bitmap(10, 20, 50, 40), bitmap(12, 20, 50, 40), bitmap(0, 0, 0, 0)]


@pytest.fixture
def seen(tmp_path: Path) -> Segmentations:
    path = tmp_path / "garden.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    rows = zip(("a cat", "a cat", "a dog"), MASKS, (0.9, 0.8, 0.7), strict=True)
    answers = tuple(Segmentation(text, bitmap_rle(mask), score, image_id=3) for text, mask, score in rows)
    return Segmentations(answers, Picture(str(path), path, path))


def test_is_a_sequence(seen: Segmentations) -> None:
    assert seen[0].text == "a cat"
    assert seen[1:] == seen[[1, 2]] == seen[np.array([False, True, True])]
    assert seen == list(seen)
    assert seen != seen[:1]
    assert np.array_equal(seen.masks, MASKS)
    assert seen[:0].masks.shape == (0, 60, 80)
    assert repr(seen).endswith("garden.png, 80x60 pixels: 2 a cat)")
    assert seen.boxes_xyxy_px.tolist() == [[10, 20, 50, 40], [12, 20, 50, 40], [0, 0, 0, 0]]


def test_is_chosen_from(seen: Segmentations) -> None:
    assert seen.filter(names="a dog").labels == ["a dog"]
    assert seen.filter(min_score=0.75, min_area=780).scores.tolist() == [0.9]
    assert seen.filter(min_area=1).labels == ["a cat", "a cat"]
    assert seen.with_nms(0.9).scores.tolist() == [0.9, 0.7]
    assert seen.with_nms(0.96).scores.tolist() == [0.9, 0.8, 0.7]
    with pytest.raises(OptionError, match="a cow"):
        seen.filter(names="a cow")


def test_is_drawn_cropped_and_saved(seen: Segmentations, tmp_path: Path) -> None:
    assert seen.plot().size == (480, 360)
    assert [one.shape for one in seen.crop()] == [(20, 40, 3), (20, 38, 3), (1, 1, 3)]
    assert (seen.crop(margin=0.1, background=7)[0][0] == 7).all()
    assert "base64," in seen._repr_html_()
    for suffix in (".png", ".json", ".txt", ".csv"):
        assert seen.save(tmp_path / f"out{suffix}").stat().st_size


def test_other_forms_hold_the_masks(seen: Segmentations, tmp_path: Path) -> None:
    first, second = seen.to_coco()
    assert np.array_equal(coco_mask.decode(first["segmentation"]), MASKS[0])
    assert (first["category_id"], second["bbox"]) == (1, [12.0, 20.0, 38.0, 20.0])
    assert len(seen.to_yolo(scores=True).splitlines()) == 2
    (tmp_path / "garden.json").write_text(json.dumps(seen.to_labelme()))
    again = read_dataset(tmp_path)[0]
    assert again.instances.masks_rle is not None
    assert np.array_equal(coco_mask.decode(again.instances.masks_rle[1]), MASKS[1])


def test_supervision_and_back(seen: Segmentations) -> None:
    pytest.importorskip("supervision")
    again = Segmentations.from_supervision(seen.to_supervision())
    assert np.array_equal(again.masks, seen.masks)
    assert (again.labels, again.scores.tolist(), again.image_id) == (seen.labels, seen.scores.tolist(), 3)
    without = seen.to_supervision()
    without.mask = None
    with pytest.raises(DataError, match="have no masks"):
        Segmentations.from_supervision(without)


def test_pandas(seen: Segmentations) -> None:
    pytest.importorskip("pandas")
    assert seen.to_pandas().area.tolist() == [800, 760, 0]
