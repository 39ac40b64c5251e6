"""Masks from files: far points, runs that do not add up and impossible sizes never reach compiled code."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import image_size, mask_rle
from deixis.geometry.rle import MAX_OUTLINE_PX, bitmap_rle, counts_rle, polygons_rle
from deixis.records import MAX_PIXELS

SIZE_HW = (40, 60)


def bitmap(rle):
    return np.asarray(coco_mask.decode(rle))


@given(st.lists(st.tuples(st.floats(-50, 110), st.floats(-35, 75)), min_size=3, max_size=9))
@settings(max_examples=40, deadline=None)
def test_polygons_near_the_image_are_rasterised_as_pycocotools_does(points):
    flat = [value for point in points for value in point]
    expected = coco_mask.merge(coco_mask.frPyObjects([flat], *SIZE_HW))
    assert polygons_rle([flat], SIZE_HW) == expected


@pytest.mark.parametrize("order", ["C", "F"])
def test_bitmaps_run_down_the_columns_whatever_their_type_and_order(order):
    mask = np.zeros((3, 5), bool, order)
    mask[1:, 2] = mask[0, 3] = True
    expected = counts_rle([7, 3, 5], (3, 5))  # down column 2 from row 1, on into the top of column 3
    for same in (mask, mask.astype(np.uint8), np.repeat(mask, 2, axis=1)[:, ::2]):
        assert bitmap_rle(same) == expected
    assert bitmap(bitmap_rle(np.zeros((3, 5), bool))).shape == (3, 5)


@given(st.lists(st.tuples(st.floats(-2e3, 2e3), st.floats(-2e3, 2e3)), min_size=3, max_size=9))
@settings(max_examples=40, deadline=None)
def test_cutting_what_is_far_outside_moves_edges_by_a_pixel_at_most(points):
    flat = [value for point in points for value in point]
    expected = bitmap(coco_mask.merge(coco_mask.frPyObjects([flat], *SIZE_HW)))
    found = bitmap(polygons_rle([flat], SIZE_HW))
    edges = 2 * len(points) * max(SIZE_HW)
    assert (found != expected).sum() <= edges / 10


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "has no polygon"),
        ([[]], "has a polygon of 0 numbers, expected x, y of three points or more"),
        ([[1, 1, 2, 2]], "has a polygon of 4 numbers"),
        ([[1, 1, 5, 1, 5, 5], [3, 3]], "has a polygon of 2 numbers"),
        ([[1, 1, 5, 1, 5, 5, 2]], "has a polygon of 7 numbers"),
    ],
)
def test_what_is_no_polygon_is_an_error(polygons, message):
    with pytest.raises(ValueError, match=message):
        polygons_rle(polygons, SIZE_HW)


@pytest.mark.parametrize("far", [2.0**31, -(2.0**31), 4e8, 1.2e7, -5e6, 1e30, 1e308, float("inf"), float("nan")])
@pytest.mark.parametrize("place", range(6))
def test_a_point_that_cannot_be_meant_is_an_error(far, place):
    flat = [1.0, 1.0, 30.0, 1.0, 30.0, 20.0]
    flat[place] = far
    with pytest.raises(ValueError, match="far outside its image of 60x40"):
        polygons_rle([[1, 1, 5, 1, 5, 5], flat], SIZE_HW)


def test_a_far_point_is_cut_and_the_area_stays():
    """A triangle with a corner at 900,000 pixels is a wedge that the image sees the beginning of."""
    assert coco_mask.area(polygons_rle([[0, 0, 9e5, 0, 9e5, 40, 0, 40]], SIZE_HW)) == 40 * 60
    assert coco_mask.area(polygons_rle([[-9e5, 10, 9e5, 10, 9e5, 20, -9e5, 20]], SIZE_HW)) == 10 * 60
    assert coco_mask.area(polygons_rle([[7e5, 7e5, 9e5, 7e5, 9e5, 9e5]], SIZE_HW)) == 0
    assert coco_mask.area(polygons_rle([[-9e5, 5, -8e5, 5, -8e5, 9]], SIZE_HW)) == 0


def test_many_long_edges_are_an_error_before_they_take_gigabytes():
    zigzag = [value for i in range(200_000) for value in ((0.0, 0.0) if i % 2 else (60.0, 40.0))]
    with pytest.raises(ValueError, match=f"at most {MAX_OUTLINE_PX}"):
        polygons_rle([zigzag], SIZE_HW)


def test_many_polygons_take_time_in_their_number():
    squares = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for x in range(0, 200, 2) for y in range(0, 400, 2)]
    start = time.process_time()
    rle = polygons_rle(squares, (400, 200))
    assert time.process_time() - start < 5, "merging one by one takes the square of their number"
    assert coco_mask.area(rle) == len(squares)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("o" * 100_000, "does not end"),
        ("P" * 50 + "0", "does not end"),
        ("1" * 100_000, "more than the 2400"),
        ("0é", "does not use"),
        ("PPP", "in the middle"),
        ([2400] * 10, "for 24000 pixels"),
        ([10**30, 1], "far too many"),
        ([10**30, -(10**30), 2400], "neither RLE text nor whole numbers"),
        ([2399, True], "neither RLE text nor whole numbers"),
        ([2399.0, 1.0], "neither RLE text nor whole numbers"),
        ({"a": 1}, "neither RLE text nor whole numbers"),
    ],
)
def test_runs_that_do_not_add_up_are_an_error(counts, message):
    with pytest.raises(ValueError, match=message):
        counts_rle(counts, SIZE_HW)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_text_of_runs_is_taken_as_it_is(as_bytes):
    drawn = np.random.default_rng(0).integers(0, 2, SIZE_HW).astype(np.uint8)
    rle = coco_mask.encode(np.asfortranarray(drawn))
    counts = rle["counts"] if as_bytes else rle["counts"].decode()
    assert counts_rle(counts, SIZE_HW) == rle


@pytest.mark.parametrize("size_hw", [(10**9, 1), (1, 10**9), (0, 5), (-3, 5), (40_000, 40_000), (10**30, 10**30)])
def test_impossible_sizes_are_an_error_before_anything_is_allocated(size_hw):
    height, width = size_hw
    with pytest.raises(ValueError, match="image size"):
        mask_rle([[0, 0, 9, 0, 9, 9]], size_hw)
    with pytest.raises(ValueError, match="image size"):
        mask_rle({"size": list(size_hw), "counts": [height * width]}, size_hw)
    with pytest.raises(ValueError, match="image size"):
        image_size(height, width)


@pytest.mark.parametrize("value", [None, "5", True, [5], float("nan"), 10**400])
def test_sizes_that_are_no_numbers_are_an_error(value):
    with pytest.raises(ValueError, match="must be positive numbers"):
        image_size(value, 5)
    assert MAX_PIXELS >= 20_000 * 15_000, "an aerial picture"
