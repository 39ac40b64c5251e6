"""Generated scenes: the same for ever, labels exact, held-out words really held out."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deixis.data.scenes.images import (
    MIN_VISIBLE,
    SEEN_PAIRS,
    UNSEEN_PAIRS,
    Thing,
    draw_scene,
    name_of,
    scenes,
)
from deixis.data.scenes.shapes import COLOURS_RGB, KNOWN_SHAPES, NEW_SHAPES, Window, coverage, outline_of
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask


def test_a_scene_is_a_function_of_split_seed_and_index() -> None:
    first, again = scenes("pretrain", 8, 3)[5], scenes("pretrain", 800, 3)[5]
    assert np.array_equal(first.image, again.image)
    assert first.vocabulary == again.vocabulary
    assert np.array_equal(first.instances.boxes_xyxy_px, again.instances.boxes_xyxy_px)
    for other in (scenes("pretrain", 8, 4)[5], scenes("pretrain", 8, 3)[4], scenes("seen_pairs", 8, 3)[5]):
        assert not np.array_equal(first.image, other.image)


def test_demo_splits_share_no_picture() -> None:
    train, held_out = scenes("demo_train", 20, 0), scenes("demo_val", 20, 0)
    train_bytes = {train[i].image.tobytes() for i in range(20)}
    assert not any(held_out[i].image.tobytes() in train_bytes for i in range(20))


def test_box_of_mask_is_x_first() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:15, 10:50] = True  # 10 high, 40 wide
    assert box_of_mask(mask) == (10.0, 5.0, 50.0, 15.0)


@pytest.mark.parametrize("split", ["pretrain", "demo_val", "unseen_pairs"])
def test_boxes_areas_and_masks_agree(split: str) -> None:
    dataset = scenes(split, 32, 1)
    for index in range(32):
        sample = dataset[index]
        objects = sample.instances
        assert 1 <= len(objects) <= 6
        assert objects.masks_rle is not None
        for box, area, rle in zip(objects.boxes_xyxy_px, objects.areas_px, objects.masks_rle, strict=True):
            mask = coco_mask.decode(rle).astype(bool)
            assert mask.shape == sample.size_hw
            assert box_of_mask(mask) == tuple(box)
            assert mask.sum() == area


def test_masks_do_not_overlap_and_stay_visible() -> None:
    for seed in range(40):
        scene = draw_scene((96, 160), SEEN_PAIRS, np.random.default_rng(seed), plain=0.5)
        assert scene.masks.sum(0).max() == 1
        for mask, thing in zip(scene.masks, scene.things, strict=True):
            window = Window.around(thing.centre_xy_px, thing.radius_px, (96, 160))
            outline = outline_of(thing.shape)
            whole = coverage(outline, thing.centre_xy_px, thing.radius_px, thing.turn_deg, window) >= 0.5
            # Each of the up to five later things may cover its share.
            assert mask.sum() >= MIN_VISIBLE**5 * whole.sum()


def test_a_drawn_thing_is_where_its_box_says() -> None:
    """A plain red thing: the red pixels' extent is the box."""
    for seed in range(30):
        scene = draw_scene((128, 128), (("red", "circle"),), np.random.default_rng(seed), plain=1.0)
        if len(scene.things) > 1:
            continue
        red = (scene.pixels[..., 0].astype(int) - scene.pixels[..., 1:].max(-1)) > 60
        box, drawn = np.array(box_of_mask(scene.masks[0])), np.array(box_of_mask(red))
        assert np.abs(box - drawn).max() <= 1.5, (box, drawn)


def test_every_outline_fits_its_window() -> None:
    for shape in {**KNOWN_SHAPES, **NEW_SHAPES}:
        for turn in range(0, 360, 15):
            small = Window.around((100.0, 100.0), 30.0, (200, 200))
            whole = Window(0, 0, (200, 200))
            outline = outline_of(shape)
            inside = coverage(outline, (100.0, 100.0), 30.0, turn, small).sum()
            assert inside == pytest.approx(coverage(outline, (100.0, 100.0), 30.0, turn, whole).sum(), rel=1e-6), shape


def test_held_out_pairs_are_never_shown_and_never_named_in_pretraining() -> None:
    unseen = {" ".join(pair) for pair in UNSEEN_PAIRS}
    dataset = scenes("pretrain", 400, 0)
    for index in range(400):
        names = set(dataset[index].vocabulary.names)
        assert not names & unseen
        assert not names & set(NEW_SHAPES)
    rng = np.random.default_rng(0)
    for _ in range(200):
        for thing in draw_scene((128, 128), SEEN_PAIRS, rng, plain=0.5).things:
            assert (thing.colour, thing.shape) not in UNSEEN_PAIRS


def test_every_word_keeps_most_of_its_pairs() -> None:
    assert len(SEEN_PAIRS) == 80
    assert len(UNSEEN_PAIRS) == 20
    for position, words in enumerate((COLOURS_RGB, KNOWN_SHAPES)):
        for word in words:
            assert sum(pair[position] == word for pair in SEEN_PAIRS) == 8


def test_a_name_has_one_object_kind_whatever_the_scheme() -> None:
    thing = Thing("star", "red", "striped", (0.0, 0.0), 10.0, 0.0)
    assert [name_of(thing, scheme) for scheme in ("colour", "shape", "texture")] == ["red star", "star", "striped star"]


def test_pretraining_prompts_hold_what_is_shown_and_more() -> None:
    dataset = scenes("pretrain", 100, 0)
    for index in range(100):
        sample = dataset[index]
        assert len(sample.vocabulary) > len(set(sample.instances.class_ids.tolist()))


def test_the_size_of_a_scene_is_known_without_drawing_it() -> None:
    dataset = scenes("pretrain", 40, 0)
    sizes = [dataset.size_hw(index) for index in range(40)]
    assert sizes == [dataset[index].size_hw for index in range(40)]
    assert len(set(sizes)) > 2


def test_bad_requests() -> None:
    with pytest.raises(DataError, match="no split 'train'"):
        scenes("train", 1, 0)
    with pytest.raises(DataError, match="at least 1"):
        scenes("pretrain", 0, 0)
    with pytest.raises(IndexError):
        scenes("pretrain", 4, 0)[4]
