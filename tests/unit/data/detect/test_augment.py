"""Augmentation keeps pixels and boxes together: a painted box is where the boxes say, after each of them."""

from __future__ import annotations

import numpy as np
import pytest

from deixis.data.detect.augment import PRESETS, Augmented, compressed, mix, mixup, mosaic, recoloured, turn
from deixis.data.detect.transforms import eval_transform
from deixis.records import Instances, Sample, Vocabulary

NAMES = Vocabulary(("cat", "dog"))


def painted(box=(10, 4, 50, 14), size_hw=(60, 100), class_id=0, vocabulary=NAMES, **changes):
    """Black, with a white box that is wider than high."""
    pixels = np.zeros((*size_hw, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return Sample(pixels, size_hw, Instances.build([box], [class_id]), vocabulary, **changes)


def white_box(pixels, least=128):
    rows, columns = np.nonzero((np.asarray(pixels)[..., 0] >= least) & (np.asarray(pixels)[..., 0] != 114))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("quarters", range(5))
def test_a_turned_box_is_where_its_pixels_are(quarters):
    turned = turn(painted(), quarters)
    assert turned.instances.boxes_xyxy_px[0].tolist() == white_box(turned.image)
    assert turned.size_hw == turned.image.shape[:2]
    assert (turned.size_hw == (60, 100)) == (quarters % 2 == 0)


def test_four_turns_are_none():
    sample = painted()
    back = turn(turn(sample, 1), 3)
    assert np.array_equal(back.image, sample.image)
    assert np.array_equal(back.instances.boxes_xyxy_px, sample.instances.boxes_xyxy_px)


def test_a_mosaic_holds_four_pictures_in_its_cells():
    others = [painted(class_id=1), painted((0, 0, 60, 100), (100, 60)), painted(vocabulary=Vocabulary(("cow", "dog")))]
    found = mosaic(painted(), others)
    assert found.size_hw == (120, 200) == found.image.shape[:2]
    assert found.instances.class_ids.tolist() == [0, 1, 0, 0], "other classes are not mixed in"
    for box, (top, left) in zip(found.instances.boxes_xyxy_px, ((0, 0), (0, 100), (60, 0), (60, 100)), strict=True):
        cell = found.image[top : top + 60, left : left + 100]
        np.testing.assert_allclose(box - [left, top, left, top], white_box(cell), atol=1)


def test_mixup_lays_one_picture_over_the_other():
    other = painted((20, 30, 40, 55), class_id=1, not_exhaustive_class_ids=frozenset({0}))
    found = mixup(painted(), other, 0.5)
    assert found.instances.boxes_xyxy_px.tolist() == [[10, 4, 50, 14], [20, 30, 40, 55]]
    assert set(np.unique(found.image).tolist()) == {0, 128}
    assert found.not_exhaustive_class_ids == {0}
    federated = painted(absent_class_ids=frozenset())
    assert mixup(federated, other, 0.5) is federated


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_drawn_from_the_generator_alone(name):
    augmented = Augmented(eval_transform(60, 120), PRESETS[name])

    def run(seed):
        generator = np.random.default_rng(seed)
        mixed = mix(painted(), PRESETS[name], generator, lambda: painted(class_id=1))
        return augmented(mixed, generator)

    for seed in range(12):
        first, again = run(seed), run(seed)
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.instances.boxes_xyxy_px, again.instances.boxes_xyxy_px)
        height, width = first.size_hw
        assert first.image.shape == (height, width, 3)
        assert (first.instances.boxes_xyxy_px >= 0).all()
        assert (first.instances.boxes_xyxy_px <= [width, height, width, height]).all()
    if name in ("light", "none"):
        assert np.array_equal(run(0).image, painted().image)
    else:
        assert len({run(seed).image.tobytes() for seed in range(12)}) > 6


def test_pixels_change_and_stay_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for changed in (recoloured(pixels, np.random.default_rng(1)), compressed(pixels, 40)):
        assert changed.dtype == np.uint8
        assert changed.shape == pixels.shape
        assert not np.array_equal(changed, pixels)
    red = np.full((8, 8, 3), (200, 30, 30), np.uint8)
    assert compressed(red, 90)[4, 4].argmax() == 0, "channels keep their order"
