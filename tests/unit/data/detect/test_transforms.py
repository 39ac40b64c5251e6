"""Transforms: pixels, boxes and masks move together; non-square pictures throughout, so that swapped axes show."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deixis.data.detect.transforms import (
    crop,
    eval_transform,
    horizontal_flip,
    random_crop,
    resize,
    resize_to,
    resized_hw,
    train_transform,
)
from deixis.data.pixels.instances import kept_by_crop, visible_shares
from deixis.errors import OptionError
from deixis.records import Instances, Sample, Vocabulary

THINGS = Vocabulary(("thing",))


def bitmap_of(box_xyxy: tuple[int, int, int, int], size_hw: tuple[int, int]) -> np.ndarray:
    bitmap = np.zeros(size_hw, np.uint8)
    bitmap[box_xyxy[1] : box_xyxy[3], box_xyxy[0] : box_xyxy[2]] = 1
    return bitmap


def painted(size_hw: tuple[int, int], *boxes: tuple[int, int, int, int], masks: bool = True) -> Sample:
    """A black picture with a white rectangle in each box, and its mask."""
    bitmaps = [bitmap_of(box, size_hw) for box in boxes]
    picture = np.zeros((*size_hw, 3), np.uint8)
    for bitmap in bitmaps:
        picture[bitmap > 0] = 255
    rles = [coco_mask.encode(np.asfortranarray(bitmap)) for bitmap in bitmaps] if masks and boxes else None
    instances = Instances.build(np.array(boxes, float).reshape(-1, 4), [0] * len(boxes), masks_rle=rles)
    return Sample(picture, size_hw, instances, THINGS)


def extent(bitmap: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(bitmap)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def assert_together(sample: Sample, slack_px: float = 1.0) -> None:
    """The single object's box, mask and white pixels are in the same place."""
    (box,) = sample.instances.boxes_xyxy_px
    assert np.abs(extent(sample.image[..., 0] > 127) - box).max() <= slack_px
    assert sample.instances.masks_rle is not None
    mask = coco_mask.decode(sample.instances.masks_rle[0])
    assert mask.shape == sample.size_hw == sample.image.shape[:2]
    assert np.abs(extent(mask) - box).max() <= slack_px


# A box 10 wide and 40 high in a picture 60 high and 100 wide.
TALL = (5, 15, 15, 55)


def test_resize_scales_each_axis_by_its_own_whole_pixel_ratio() -> None:
    resized = resize_to(painted((60, 100), TALL), (90, 50))
    np.testing.assert_allclose(resized.instances.boxes_xyxy_px, [[2.5, 22.5, 7.5, 82.5]])
    np.testing.assert_allclose(resized.instances.areas_px, [5 * 60])
    assert resized.size_hw == (90, 50)
    assert resized.original_size_hw == (60, 100)
    assert_together(resized)


def test_resize_ratio_is_that_of_the_rounded_sizes() -> None:
    """427 x 640 at 800 becomes 800 x 1199, not 1199.06: a box over the whole image still covers exactly it."""
    sample = painted((427, 640), (0, 0, 640, 427))
    np.testing.assert_array_equal(resize(sample, 800, 1333).instances.boxes_xyxy_px, [[0, 0, 1199, 800]])


@pytest.mark.parametrize("times", [2, 4, 8])
def test_shrinking_averages_blocks(times: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12 * times, 20 * times, 3), dtype=np.uint8)
    sample = Sample(pixels, pixels.shape[:2], Instances.none(), THINGS)
    blocks = pixels.reshape(12, times, 20, times, 3).mean((1, 3))
    assert np.abs(np.asarray(resize_to(sample, (12, 20)).image, float) - blocks).max() <= 0.5 * np.log2(times)


def test_resize_to_the_same_size_changes_nothing() -> None:
    sample = painted((60, 100), TALL)
    assert resize(sample, 60, 1000) is sample


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((400, 1200), (444, 1333)),  # the long side decides
        ((800, 800), (800, 800)),
        ((1, 5000), (1, 1333)),  # never without pixels
        ((10, 40), (333, 1333)),
    ],
)
def test_resized_size(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_hw(size_hw, 800, 1333) == expected


def test_shrinking_averages_and_growing_interpolates() -> None:
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    sample = Sample(stripes, (8, 64), Instances.none(), THINGS)
    np.testing.assert_array_equal(resize_to(sample, (4, 32)).image, 100)
    grown = resize_to(sample, (8, 128)).image
    assert grown.dtype == np.uint8
    assert len(np.unique(grown)) > 2


def test_flip_mirrors_x_alone() -> None:
    sample = painted((60, 100), TALL)
    flipped = horizontal_flip(sample)
    np.testing.assert_array_equal(flipped.instances.boxes_xyxy_px, [[85, 15, 95, 55]])
    assert_together(flipped, slack_px=0)
    np.testing.assert_array_equal(horizontal_flip(flipped).image, sample.image)
    np.testing.assert_array_equal(sample.instances.boxes_xyxy_px, [list(TALL)])  # the first is untouched


def test_crop_moves_and_clips() -> None:
    cropped = crop(painted((60, 100), TALL), (8, 20, 90, 60))
    assert cropped.size_hw == (40, 82)
    assert cropped.original_size_hw == (60, 100)
    np.testing.assert_array_equal(cropped.instances.boxes_xyxy_px, [[0, 0, 7, 35]])
    np.testing.assert_array_equal(cropped.instances.areas_px, [7 * 35])
    assert_together(cropped, slack_px=0)


def test_crop_without_masks_shrinks_areas_with_the_boxes() -> None:
    sample = painted((60, 100), TALL, masks=False)
    instances = Instances.build([[5, 15, 15, 55]], [0], areas_px=[200])  # half of the box is object
    cropped = crop(sample.evolve(instances=instances), (0, 25, 100, 60))
    np.testing.assert_allclose(cropped.instances.areas_px, [150])
    assert cropped.instances.masks_rle is None


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("box", [(0, 5, 0, 20), (50, 5, 50, 20), (20, 0, 30, 0), (50, 30, 50, 30), (0, 0, 0, 0)])
def test_a_box_without_an_area_is_in_the_one_window_that_has_its_centre(
    box: tuple[int, int, int, int], crowd: bool
) -> None:
    instances = Instances.build([box], [0], [crowd])
    windows = [(x, y, x + 50, y + 30) for x in (0, 50) for y in (0, 30)]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = [left <= x < right and top <= y < bottom for left, top, right, bottom in windows]
    assert [bool(visible_shares(instances, window)[0]) for window in windows] == inside
    assert [bool(kept_by_crop(instances, window)[0]) for window in windows] == inside
    assert sum(inside) == 1
    assert visible_shares(instances, (0, 0, 100, 60)).tolist() == [1.0]


def test_crop_keeps_what_is_a_quarter_visible() -> None:
    """TALL is 10 wide from x = 5, the other 40 from x = 40. Where their centres lie decides nothing."""
    sample = painted((60, 100), TALL, (40, 10, 80, 20))
    assert len(crop(sample, (12, 0, 100, 60)).instances) == 2  # 3 of TALL's 10 columns
    assert len(crop(sample, (13, 0, 100, 60)).instances) == 1  # 2 of them
    assert len(crop(sample, (0, 0, 50, 60)).instances) == 2  # 10 of 40
    assert len(crop(sample, (0, 0, 49, 60)).instances) == 1
    assert len(crop(sample, (90, 0, 100, 60)).instances) == 0


def test_what_is_left_of_a_dropped_object_is_not_judged() -> None:
    things = Vocabulary(("cup", "dog", "cat"))
    instances = Instances.build([[5, 15, 15, 55], [40, 10, 80, 20]], [0, 2])
    sample = Sample(np.zeros((60, 100, 3), np.uint8), (60, 100), instances, things)
    sliver = crop(sample, (14, 0, 100, 60))
    assert sliver.not_exhaustive_class_ids == {0}
    assert not sliver.judges(0)
    assert sliver.known_absent_class_ids == {1}  # it may not be drawn as a negative either
    assert crop(sample, (15, 0, 100, 60)).not_exhaustive_class_ids == set()  # nothing of it is visible
    assert crop(sample, (15, 0, 100, 60)).known_absent_class_ids == {0, 1}
    assert crop(sample, (12, 0, 100, 60)).not_exhaustive_class_ids == set()  # it is kept
    both = crop(sample.evolve(not_exhaustive_class_ids=frozenset({2})), (14, 0, 100, 60))
    assert both.not_exhaustive_class_ids == {0, 2}  # what was known before stays known


def test_a_second_object_of_the_class_does_not_make_it_judged() -> None:
    instances = Instances.build([[0, 0, 40, 60], [50, 0, 60, 60]], [0, 0])
    cropped = crop(painted((60, 100)).evolve(instances=instances), (35, 0, 100, 60))
    assert len(cropped.instances) == 1
    assert cropped.not_exhaustive_class_ids == {0}


def test_the_mask_says_what_is_visible() -> None:
    """An L: a bar on the left, a thin foot to the right. Of its box half lies in the window, of itself a tenth."""
    bitmap = np.zeros((60, 100), np.uint8)
    bitmap[0:50, 0:20] = 1  # 1000 pixels
    bitmap[40:44, 20:40] = 1  # 80
    rle = coco_mask.encode(np.asfortranarray(bitmap))
    boxes = Instances.build([[0, 0, 40, 50]], [0])
    masked = Instances.build([[0, 0, 40, 50]], [0], masks_rle=[rle])
    window = (20, 0, 100, 60)
    assert visible_shares(boxes, window).tolist() == [0.5]
    assert visible_shares(masked, window).tolist() == [80 / 1080]
    sample = painted((60, 100))
    assert len(crop(sample.evolve(instances=boxes), window).instances) == 1
    cropped = crop(sample.evolve(instances=masked), window)
    assert len(cropped.instances) == 0
    assert cropped.not_exhaustive_class_ids == {0}


def test_an_empty_mask_leaves_it_to_the_box() -> None:
    rle = coco_mask.encode(np.asfortranarray(np.zeros((60, 100), np.uint8)))
    instances = Instances.build([[0, 0, 40, 50]], [0], masks_rle=[rle])
    assert visible_shares(instances, (20, 0, 100, 60)).tolist() == [0.5]


def test_what_fills_the_image_is_in_every_random_crop() -> None:
    sample = painted((61, 103)).evolve(instances=Instances.build([[0, 0, 103, 61]], [0]))
    for seed in range(200):
        assert kept_by_crop(sample.instances, random_window(sample, seed)).all()


def random_window(sample: Sample, seed: int) -> tuple[int, int, int, int]:
    """Smallest windows, in random corners."""
    generator = np.random.default_rng(seed)
    height, width = (-(-side // 2) for side in sample.size_hw)
    top, left = (
        int(generator.integers(0, whole - part + 1))
        for whole, part in zip(sample.size_hw, (height, width), strict=True)
    )
    return (left, top, left + width, top + height)


def test_random_crops_leave_no_remains_where_that_can_be() -> None:
    """One object in the middle is cut by many windows; a picture full of them, by all."""
    lone = painted((60, 100), (45, 20, 55, 40))
    corners = np.random.default_rng(0).uniform(0, 1, (200, 2)) * (80, 40)
    full = painted((60, 100)).evolve(instances=Instances.build(np.hstack([corners, corners + 20]), [0] * 200))
    cut = sum(bool(random_crop(lone, np.random.default_rng(seed)).not_exhaustive_class_ids) for seed in range(100))
    assert cut == 0
    crops = [random_crop(full, np.random.default_rng(seed)) for seed in range(40)]
    assert all(each.size_hw != (60, 100) for each in crops)  # cut all the same
    assert any(each.not_exhaustive_class_ids for each in crops)


def test_crop_keeps_crowd_as_long_as_it_reaches_in() -> None:
    instances = Instances.build([[0, 0, 50, 60], [0, 0, 50, 60]], [0, 0], is_crowd=[True, False])
    sample = painted((60, 100)).evolve(instances=instances)
    cropped = crop(sample, (40, 0, 100, 60))  # a fifth of both
    assert cropped.instances.is_crowd.tolist() == [True]
    np.testing.assert_array_equal(cropped.instances.boxes_xyxy_px, [[0, 0, 10, 60]])
    assert len(crop(sample, (50, 0, 100, 60)).instances) == 0


def test_crop_window_is_kept_inside_and_never_empty() -> None:
    sample = painted((60, 100), TALL)
    assert crop(sample, (-5, -5, 500, 500)).size_hw == (60, 100)
    assert crop(sample, (99, 59, 99, 59)).size_hw == (1, 1)
    assert crop(sample, (500, 500, 600, 600)).size_hw == (1, 1)


def test_flat_boxes_survive_a_crop_without_nan() -> None:
    instances = Instances.build([[5, 5, 5, 30], [5, 5, 5.25, 5.25]], [0, 0])
    cropped = crop(painted((60, 100)).evolve(instances=instances), (0, 0, 50, 40))
    assert np.isfinite(cropped.instances.areas_px).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.integers(1, 60))
def test_random_transforms_never_fail_and_keep_boxes_inside(height: int, width: int, seed: int, short_px: int) -> None:
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(0, 1, (3, 2, 2)), axis=1) * (width, height)
    instances = Instances.build(corners.reshape(3, 4), [0, 0, 0], is_crowd=[False, True, False])
    sample = Sample(np.zeros((height, width, 3), np.uint8), (height, width), instances, THINGS)
    moved = train_transform([short_px], 2 * short_px, crop_probability=1.0)(sample, generator)
    boxes = moved.instances.boxes_xyxy_px
    limit = np.array([moved.size_hw[1], moved.size_hw[0]] * 2)
    assert (boxes >= -1e-6).all()
    assert (boxes <= limit + 1e-6).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert min(moved.size_hw) >= 1
    assert moved.original_size_hw == (height, width)


def test_random_crop_keeps_an_object_where_there_is_one() -> None:
    sample = painted((60, 100), (0, 0, 4, 4))
    for seed in range(50):
        assert len(random_crop(sample, np.random.default_rng(seed)).instances) == 1


def test_random_crop_of_a_picture_without_objects() -> None:
    sizes = {random_crop(painted((60, 100)), np.random.default_rng(seed)).size_hw for seed in range(20)}
    assert len(sizes) > 10
    assert all(30 <= height <= 60 and 50 <= width <= 100 for height, width in sizes)


def test_object_stays_on_its_pixels_through_the_whole_chain() -> None:
    transform = train_transform([48, 64, 96], 160)
    for seed in range(25):
        moved = transform(painted((60, 100), (30, 10, 40, 50)), np.random.default_rng(seed))
        assert_together(moved, slack_px=2.0)


def test_train_transform_is_a_function_of_its_generator() -> None:
    transform = train_transform([48, 64, 96], 160)
    sample = painted((60, 100), TALL)
    first, again = (transform(sample, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    assert len({transform(sample, np.random.default_rng(seed)).size_hw for seed in range(20)}) > 5


def test_probabilities_are_used() -> None:
    sample = painted((60, 100), TALL)
    still = train_transform([60], 1000, crop_probability=0.0, flip_probability=0.0)
    assert still(sample, np.random.default_rng(0)) is sample
    flips = train_transform([60], 1000, crop_probability=0.0, flip_probability=1.0)
    np.testing.assert_array_equal(flips(sample, np.random.default_rng(0)).instances.boxes_xyxy_px, [[85, 15, 95, 55]])


def test_eval_transform_only_resizes() -> None:
    sample = painted((60, 100), TALL)
    first, second = (eval_transform(30, 1000)(sample, np.random.default_rng(seed)) for seed in (0, 1))
    assert first.size_hw == (30, 50)
    np.testing.assert_array_equal(first.image, second.image)


def test_transforms_travel_to_worker_processes() -> None:
    for transform in (train_transform([32], 64), eval_transform(32, 64)):
        assert pickle.loads(pickle.dumps(transform)) == transform  # noqa: S301


@pytest.mark.parametrize(
    "make",
    [
        lambda: train_transform([], 64),
        lambda: train_transform([0], 64),
        lambda: train_transform([32], 64, crop_probability=1.5),
        lambda: train_transform([32], 64, flip_probability=-0.1),
        lambda: eval_transform(0, 64),
    ],
)
def test_impossible_options(make) -> None:
    with pytest.raises(OptionError):
        make()
