"""Polygons, run lengths and bitmaps to masks (COCO RLE), checked before compiled code reads them.

pycocotools writes outside its memory, or allocates gigabytes, for points far from the image and for runs that do not
add up to its size. So every mask read from a file passes through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask as coco_mask

from deixis.records import Rle, size_fault

MAX_COORDINATE_PX = 1_000_000
MAX_OUTLINE_PX = 4_000_000  # length of all outlines of an object; pycocotools allocates 150 bytes per pixel of it
_MAX_CHARS_PER_RUN = 7  # of 5 bits each; no image has more than 2**34 pixels
_MERGED_AT_ONCE = 8
_Points = Float[np.ndarray, "points 2"]
_Cut = Float[np.ndarray, "corners 2"]


def polygons_rle(polygons: Sequence[Sequence[float] | np.ndarray], size_hw: tuple[int, int]) -> Rle:
    """The union of polygons, each [x1, y1, x2, y2, …] with three points or more, as one RLE.

    Polygons that reach more than one image size outside are cut there, which changes no pixel.

    Raises:
        ValueError: no polygon, or one of fewer points or of half a point, a point beyond `MAX_COORDINATE_PX`, outlines
            longer than `MAX_OUTLINE_PX`, or an impossible size.
    """
    height, width = _checked(size_hw)
    if not polygons:
        raise ValueError("has no polygon")
    for count in map(np.size, polygons):
        if count < 6 or count % 2:
            raise ValueError(f"has a polygon of {count} numbers, expected x, y of three points or more")
    cut = [_cut_far(np.asarray(polygon, np.float64).reshape(-1, 2), size_hw) for polygon in polygons]
    # pycocotools walks along each edge, one step per pixel of its longer side
    length = sum(float(np.abs(points - np.roll(points, -1, axis=0)).max(1).sum()) for points in cut)
    if length > MAX_OUTLINE_PX:
        raise ValueError(f"has outlines of {length:.0f} pixels, at most {MAX_OUTLINE_PX} are read for one object")
    return _merged(coco_mask.frPyObjects([points.reshape(-1).tolist() for points in cut], height, width))


def counts_rle(counts: Any, size_hw: tuple[int, int]) -> Rle:
    """An RLE from run lengths in column order, given as a list of numbers or as COCO's text.

    Raises:
        ValueError: neither of the two, runs that do not add up to the image's size, or an impossible size.
    """
    height, width = _checked(size_hw)
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    runs = _unpack(counts, height * width) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("has counts that are neither RLE text nor whole numbers of 0 or more")
    total = sum(runs)
    if total != height * width:
        shown = total if total < 1 << 63 else "far too many"
        raise ValueError(f"has counts for {shown} pixels, its image has {height * width}")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode("ascii")}
    return dict(coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def bitmap_rle(mask: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"]) -> Rle:
    """The pixels that are true, or 1, as an RLE."""
    return dict(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def plain_rle(rle: Rle) -> dict[str, Any]:
    """An RLE as plain values for JSON, its counts as a string.

    >>> plain_rle(bitmap_rle(np.array([[0, 1]], np.uint8)))
    {'size': [1, 2], 'counts': '11'}
    """
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def _checked(size_hw: tuple[int, int]) -> tuple[int, int]:
    fault = size_fault(size_hw)
    if fault is not None:
        raise ValueError(f"cannot be read: {fault}")
    return size_hw


def _cut_far(points: _Points, size_hw: tuple[int, int]) -> _Cut:
    """The polygon without its parts that lie more than one image size outside the image."""
    extreme = float(np.abs(points).max(initial=0.0))
    if not extreme <= MAX_COORDINATE_PX:
        height, width = size_hw
        raise ValueError(f"has a point at {extreme:g} pixels, far outside its image of {width}x{height}")
    size = np.array(size_hw[::-1], np.float64)  # (width, height), as points are (x, y)
    # Four cuts, at each side of a box three images wide and high; pycocotools would walk along every pixel outside it.
    for axis in (0, 1):
        for sign, limit in ((1.0, -size[axis]), (-1.0, -2 * size[axis])):
            if (sign * points[:, axis] < limit).any():  # keeps [-size, 2 * size] along each axis
                points = _cut(points, axis, sign, limit=limit)
    return points


def _cut(points: _Points, axis: int, sign: float, *, limit: float) -> _Cut:
    """The part of a polygon where `sign * coordinate >= limit` (Sutherland and Hodgman, 1974)."""
    depths = sign * points[:, axis] - limit  # 0 or more is inside
    kept: list[np.ndarray] = []
    for here, depth, before, earlier in zip(points, depths, np.roll(points, 1, 0), np.roll(depths, 1), strict=True):
        if (depth < 0) != (earlier < 0):
            kept.append(before + (here - before) * (earlier / (earlier - depth)))  # where the edge crosses the limit
        if depth >= 0:
            kept.append(here)
    return np.array(kept).reshape(-1, 2) if len(kept) >= 3 else np.full((3, 2), 2.0 * limit * sign)


def _merged(rles: list[Rle]) -> Rle:
    """The union, merged in groups of eight: adding one at a time would take quadratic time."""
    while len(rles) > _MERGED_AT_ONCE:
        rles = [coco_mask.merge(rles[i : i + _MERGED_AT_ONCE]) for i in range(0, len(rles), _MERGED_AT_ONCE)]
    return dict(coco_mask.merge(rles))


def _unpack(text: str, pixels: int) -> list[int]:
    """The runs in COCO's RLE text.

    A character holds 5 bits of a number, lowest first, plus a bit that says whether more follow; its code starts at
    `0`. From the fourth run on, the number is the difference to the run two places earlier.
    """
    runs: list[int] = []
    value = chars = total = 0
    for char in text:
        bits = ord(char) - ord("0")
        if not 0 <= bits < 64:
            raise ValueError(f"has {char!r} in its counts, which RLE text does not use")
        value |= (bits & 0x1F) << 5 * chars  # 5 bits of payload
        chars += 1
        if bits & 0x20:  # more characters follow
            if chars == _MAX_CHARS_PER_RUN:
                raise ValueError("has counts with a run that does not end")
            continue
        if bits & 0x10:  # the sign bit of the last character
            value -= 1 << 5 * chars
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        total += runs[-1]
        if runs[-1] < 0 or total > pixels:
            raise ValueError(f"has counts for more than the {pixels} pixels of its image, or negative ones")
        value = chars = 0
    if chars:
        raise ValueError("has counts that end in the middle of a run")
    return runs
