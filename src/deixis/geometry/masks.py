"""Masks as outlines. Pure functions; a mask is a bitmap, an outline runs along the edges of its pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, UInt8

_Point = tuple[int, int]


def outlines(bitmap: UInt8[np.ndarray, "h w"]) -> list[Int[np.ndarray, "points 2"]]:
    """The closed outlines (x, y) of a bitmap's regions, in pixels; the first point is not repeated at the end.

    They run along pixel edges: clockwise around a region, counter-clockwise around a hole. Filling them restores the
    bitmap exactly. Pixels that touch only at a corner belong to two regions.

    >>> [outline.tolist() for outline in outlines(np.array([[0, 1, 1]], np.uint8))]
    [[[1, 0], [3, 0], [3, 1], [1, 1]]]
    """
    onward = _edges(bitmap)
    found = []
    while onward:
        found.append(_follow(onward, next(iter(onward))))
    return found


def joined_outline(bitmap: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "points 2"]:
    """All of a bitmap as one closed curve: its outlines joined by cuts of zero width, each followed there and back.

    For formats with a single polygon per object. An empty bitmap gives an empty curve.
    """
    rest = outlines(bitmap)
    if not rest:
        return np.zeros((0, 2), np.int64)
    curve = rest.pop(0)
    while rest:
        # one [curve points, outline points] table of city-block distances per outline left
        gaps = [np.abs(curve[:, None] - outline[None]).sum(2) for outline in rest]
        nearest = min(range(len(rest)), key=lambda i: int(gaps[i].min()))
        here, there = np.unravel_index(gaps[nearest].argmin(), gaps[nearest].shape)
        loop = np.roll(rest.pop(nearest), -int(there), axis=0)  # starts at the point nearest to the curve
        curve = np.concatenate([curve[: here + 1], loop, loop[:1], curve[here:]])
    return curve


def box_of_mask(mask: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the mask's pixels, the last two exclusive. The mask must not be empty.

    >>> box_of_mask(np.array([[0, 0, 0], [0, 1, 1]], np.uint8))
    (1, 1, 3, 2)
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _edges(bitmap: np.ndarray) -> dict[_Point, list[_Point]]:
    """For each corner the corners that its unit edges lead to, with the region to the right of every edge."""
    if not bitmap.any():
        return {}
    left, top, right, bottom = box_of_mask(bitmap)  # most masks cover a small part of their image
    inside = np.pad(bitmap[top:bottom, left:right].astype(bool), 1)  # [h, w] -> [h + 2, w + 2]
    middle = inside[1:-1, 1:-1]
    onward: dict[_Point, list[_Point]] = {}
    sides = (  # (the neighbouring pixel, the first corner of the edge between them, the second corner)
        (inside[:-2, 1:-1], (0, 0), (1, 0)),
        (inside[1:-1, 2:], (1, 0), (1, 1)),
        (inside[2:, 1:-1], (1, 1), (0, 1)),
        (inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    for neighbour, (x0, y0), (x1, y1) in sides:
        rows, columns = np.nonzero(middle & ~neighbour)
        for y, x in zip((rows + top).tolist(), (columns + left).tolist(), strict=True):
            onward.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return onward


def _follow(onward: dict[_Point, list[_Point]], start: _Point) -> np.ndarray:
    """Remove one closed outline from the edges. Of two edges to choose from it takes the right turn, which stays with
    the region."""
    corners: list[_Point] = []
    here, heading = start, (0, 0)
    while True:
        ways = onward[here]
        right = (here[0] - heading[1], here[1] + heading[0])  # y points down: a right turn is (dx, dy) to (-dy, dx)
        there = right if right in ways else ways[0]
        ways.remove(there)
        if not ways:
            del onward[here]
        step = (there[0] - here[0], there[1] - here[1])
        if step != heading:
            corners.append(here)
        here, heading = there, step
        # at a corner shared by two regions the outline ends here only where no right turn is left
        if here == start and (
            start not in onward or ((here[0] - heading[1], here[1] + heading[0]) not in onward[start])
        ):
            break
    # the start was recorded as a corner, and may lie in the middle of a straight side
    if len(corners) > 4 and _collinear(corners[-1], corners[0], corners[1]):
        corners.pop(0)
    return np.array(corners, np.int64)


def _collinear(a: _Point, b: _Point, c: _Point) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) == (b[1] - a[1]) * (c[0] - b[0])
