"""Masks as outlines. Pure functions; a mask is a bitmap, an outline runs along the edges of its pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, UInt8

_Point = tuple[int, int]


def outlines(bitmap: UInt8[np.ndarray, "h w"]) -> list[Int[np.ndarray, "points 2"]]:
    """The closed outlines (x, y) of a bitmap's regions, in pixels, without the last point repeated.

    They run along pixel edges, the region on their right: clockwise around a region, the other way around a hole.
    Filling them gives the bitmap back exactly. Pixels that touch at a corner only belong to two regions.

    >>> [outline.tolist() for outline in outlines(np.array([[0, 1, 1]], np.uint8))]
    [[[1, 0], [3, 0], [3, 1], [1, 1]]]
    """
    onward = _edges(bitmap)
    found = []
    while onward:
        found.append(_follow(onward, next(iter(onward))))
    return found


def is_hole(outline: Int[np.ndarray, "points 2"]) -> bool:
    """Whether an outline goes around a hole."""
    x, y = outline.T
    return bool((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0)


def joined_outline(bitmap: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "points 2"]:
    """All of a bitmap as one closed curve: its outlines strung together by cuts of no width, gone along both ways.

    For formats that give an object a single polygon. Empty where the bitmap is.
    """
    rest = outlines(bitmap)
    if not rest:
        return np.zeros((0, 2), np.int64)
    curve = rest.pop(0)
    while rest:
        gaps = [np.abs(curve[:, None] - outline[None]).sum(2) for outline in rest]
        nearest = min(range(len(rest)), key=lambda i: int(gaps[i].min()))
        here, there = np.unravel_index(gaps[nearest].argmin(), gaps[nearest].shape)
        loop = np.roll(rest.pop(nearest), -int(there), axis=0)
        curve = np.concatenate([curve[: here + 1], loop, loop[:1], curve[here:]])
    return curve


def box_of_mask(mask: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what a mask covers, in pixels, the last two exclusive; it must not be empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _edges(bitmap: np.ndarray) -> dict[_Point, list[_Point]]:
    """From each corner the corners that a unit edge leads to, the region on the right of every edge."""
    if not bitmap.any():
        return {}
    left, top, right, bottom = box_of_mask(bitmap)  # masks are mostly small parts of their images
    inside = np.pad(bitmap[top:bottom, left:right].astype(bool), 1)
    middle = inside[1:-1, 1:-1]
    onward: dict[_Point, list[_Point]] = {}
    sides = (  # (the neighbour across the side, the side's first corner, its second)
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
    """Take one closed outline out of the edges; of two ways onward the right turn, which stays with the region."""
    corners: list[_Point] = []
    here, heading = start, (0, 0)
    while True:
        ways = onward[here]
        right = (here[0] - heading[1], here[1] + heading[0])
        there = right if right in ways else ways[0]
        ways.remove(there)
        if not ways:
            del onward[here]
        step = (there[0] - here[0], there[1] - here[1])
        if step != heading:
            corners.append(here)
        here, heading = there, step
        if here == start and (start not in onward or _closes(onward[start], here, heading)):
            break
    if len(corners) > 4 and _collinear(corners[-1], corners[0], corners[1]):
        corners.pop(0)
    return np.array(corners, np.int64)


def _closes(ways: list[_Point], here: _Point, heading: _Point) -> bool:
    """At a corner shared by two regions: whether the outline is done, rather than to turn right into another edge."""
    return (here[0] - heading[1], here[1] + heading[0]) not in ways


def _collinear(a: _Point, b: _Point, c: _Point) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) == (b[1] - a[1]) * (c[0] - b[0])
