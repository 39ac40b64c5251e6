"""Augmentation keeps pixels and boxes together: a painted box is where the boxes say, after each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deixis.batch_records import Prompt
from deixis.data.detect.augment import (
    PRESETS,
    Augmentation,
    Augmented,
    compressed,
    mix,
    mixup,
    mosaic,
    pasted,
    recoloured,
    turn,
    uncovered,
)
from deixis.data.detect.collate import SampleDataset
from deixis.data.detect.transforms import eval_transform
from deixis.geometry.rle import bitmap_rle
from deixis.records import Instances, Sample, SampleList, Vocabulary

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


@pytest.mark.parametrize("quarters", range(4))
def test_a_turn_leaves_no_mask_where_it_was(quarters):
    masks = [{"size": [60, 100], "counts": b"`o5"}]
    sample = painted()
    instances = Instances.build(sample.instances.boxes_xyxy_px, [0], masks_rle=masks)
    assert turn(sample.evolve(instances=instances), quarters).instances.masks_rle is None


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


def masked(*boxes, value=255, classes=None, size_hw=(60, 100), **changes):
    """Grey boxes of one value with their masks, on black."""
    pixels, masks = np.zeros((*size_hw, 3), np.uint8), []
    for x1, y1, x2, y2 in boxes:
        masks.append(np.zeros(size_hw, np.uint8))
        masks[-1][y1:y2, x1:x2] = 1
        pixels[y1:y2, x1:x2] = value
    rles = [bitmap_rle(mask) for mask in masks]
    instances = Instances.build(boxes, classes or [0] * len(boxes), masks_rle=rles)
    return Sample(pixels, size_hw, instances, NAMES, **changes)


def test_pasted_objects_are_where_their_boxes_say():
    sample, other = masked((10, 4, 90, 14)), masked((20, 10, 70, 20), (0, 40, 30, 59), value=200, classes=[1, 1])
    seen = set()
    for seed in range(20):
        found = pasted(sample, other, np.random.default_rng(seed))
        seen.add(len(found.instances))
        assert found.instances.masks_rle is None
        assert found.size_hw == found.image.shape[:2] == (60, 100)
        for box, of in zip(found.instances.boxes_xyxy_px, found.instances.class_ids, strict=True):
            x1, y1, x2, y2 = np.rint(box).astype(int)
            wanted = 255 if of == 0 else 200
            inside = found.image[y1:y2, x1:x2, 0]
            assert (np.abs(inside.astype(int) - wanted) <= 20).mean() > 0.4, (seed, box, of)
        outside = np.array(found.image[..., 0])
        for x1, y1, x2, y2 in found.instances.boxes_xyxy_px:
            outside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = 0
        assert not (outside > 100).any() or found.not_exhaustive_class_ids == {0}
    assert seen >= {1, 2, 3}


def test_what_is_covered_shrinks_or_goes():
    sample = masked((0, 0, 40, 10), (0, 20, 40, 30), (0, 40, 40, 50), (50, 0, 60, 10), classes=[0, 1, 0, 1])
    cut = np.zeros((60, 100), bool)
    cut[0:10, :20] = True  # half of the first
    cut[20:30, :35] = True  # most of the second
    cut[40:50, :40] = True  # all of the third
    below, unjudged = uncovered(sample, cut)
    assert below.boxes_xyxy_px.tolist() == [[20, 0, 40, 10], [50, 0, 60, 10]]
    assert below.areas_px.tolist() == [200, 100]
    assert unjudged == {1}, "a bit of the second is visible, and has no box; nothing is left of the third"


def test_nothing_is_pasted_without_masks_or_on_other_classes():
    sample, generator = masked((10, 4, 90, 14)), np.random.default_rng(0)
    for other in (painted(), masked((0, 0, 9, 9), absent_class_ids=frozenset())):
        assert pasted(sample, other, generator) is sample
    unmasked = painted()
    assert pasted(unmasked, sample, generator) is unmasked
    empty = replace(sample, instances=Instances.none())
    assert len(pasted(sample, empty, generator).instances) == 1
    assert max(len(pasted(empty, sample, np.random.default_rng(seed)).instances) for seed in range(6)) == 1


def test_training_items_have_pasted_objects_and_no_masks():
    samples = [masked((10, 4, 90, 14)), masked((0, 20, 50, 50), classes=[1])]
    data, prompt = SampleList(tuple(samples), NAMES), Prompt("", (), (), (), np.zeros((0, 0), np.float32))

    def counts(paste):
        mixed = Augmentation(paste=paste)
        shown = SampleDataset(data, eval_transform(60, 120), lambda sample, generator: prompt, 0, mixed=mixed)
        items = [shown[epoch, index][0].instances for epoch in range(6) for index in range(2)]
        assert all(one.masks_rle is None for one in items)
        return {len(one) for one in items}

    assert counts(0.0) == {1}
    assert 2 in counts(1.0)


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
    if name in ("light", "flips", "none"):
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
