"""Outlines: they run along pixel edges and give the bitmap back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from deixis.geometry.masks import joined_outline, outlines

BITMAPS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))


def filled(polygon: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    rles = coco_mask.frPyObjects([polygon.astype(float).reshape(-1).tolist()], *size_hw)
    return np.asarray(coco_mask.decode(rles))[:, :, 0]


def inside(found: list[np.ndarray], size_hw: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre has an odd number of vertical edges on its left: the even-odd rule, written plainly."""
    crossings = np.zeros(size_hw, np.int64)
    for outline in found:
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0:] += 1
    return crossings % 2


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((3, 4), np.uint8)) == []
    assert joined_outline(np.zeros((3, 4), np.uint8)).shape == (0, 2)


def test_a_long_box_is_four_corners_clockwise() -> None:
    bitmap = np.zeros((10, 40), np.uint8)
    bitmap[2:5, 7:30] = 1
    assert [outline.tolist() for outline in outlines(bitmap)] == [[[7, 2], [30, 2], [30, 5], [7, 5]]]


def test_a_hole_runs_the_other_way() -> None:
    bitmap = np.ones((5, 6), np.uint8)
    bitmap[2, 2:4] = 0
    signed_areas = []
    for outline in outlines(bitmap):
        x, y = outline.T
        signed_areas.append(int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2)
    assert signed_areas == [30, -2]


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    assert sorted(len(outline) for outline in outlines(np.eye(2, dtype=np.uint8))) == [4, 4]


@pytest.mark.parametrize("touching", [False, True])
def test_holes_that_touch_at_a_corner(touching: bool) -> None:
    bitmap = np.ones((4, 4), np.uint8)
    bitmap[1, 1] = bitmap[2, 2] = 0
    bitmap[3, 3] = not touching
    np.testing.assert_array_equal(inside(outlines(bitmap), bitmap.shape), bitmap)


@settings(deadline=None, max_examples=150)
@given(BITMAPS)
def test_outlines_enclose_the_bitmap_and_turn_at_every_corner(bitmap: np.ndarray) -> None:
    found = outlines(bitmap)
    np.testing.assert_array_equal(inside(found, bitmap.shape), bitmap)
    for outline in found:
        steps = np.roll(outline, -1, axis=0) - outline
        assert ((steps != 0).sum(1) == 1).all(), "edges are horizontal or vertical"
        assert ((steps[:, 0] == 0) != (np.roll(steps, -1, axis=0)[:, 0] == 0)).all(), "no corner is superfluous"


@settings(deadline=None, max_examples=150)
@given(BITMAPS)
def test_one_joined_curve_fills_to_the_bitmap(bitmap: np.ndarray) -> None:
    if bitmap.any():
        np.testing.assert_array_equal(filled(joined_outline(bitmap), bitmap.shape), bitmap)
