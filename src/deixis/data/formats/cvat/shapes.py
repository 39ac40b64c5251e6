"""CVAT's shapes, as elements of its XML, to objects; and a tracked shape between two of its key frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    Points,
    bitmap,
    box,
    corners_of,
    cut_to,
    ellipse_outline,
    points_of,
    polygon,
    turned,
)

READ = ("box", "polygon", "mask", "ellipse")
NOT_READ = ("polyline", "points", "cuboid", "skeleton", "tag")  # which enclose nothing, or no pixels of an image
_NUMBERS = {"box": ("xtl", "ytl", "xbr", "ybr"), "ellipse": ("cx", "cy", "rx", "ry")}
_MASK_NUMBERS = ("left", "top", "width", "height")


@dataclass(frozen=True)
class Shape:
    """One shape in one image or frame.

    Attributes:
        kind: one of `READ`.
        numbers: of a box its corners, of an ellipse centre and radii, of a polygon x1, y1, x2, y2, …; of a mask left,
            top, width, height and then the lengths of its runs, row by row, the first of pixels that are not set.
        degrees: clockwise, about the centre.
    """

    kind: str
    label: str
    numbers: tuple[float, ...]
    degrees: float = 0.0


def shape_of(kind: str, label: str, values: Mapping[str, str]) -> Shape:
    """A shape from the attributes of its element.

    Raises:
        ValueError: an attribute that is absent, or no number.
    """
    if kind == "polygon":
        numbers = [
            number_of(part, "points") for pair in values.get("points", "").split(";") for part in pair.split(",")
        ]
    elif kind == "mask":
        numbers = [number_of(values.get(key), key) for key in _MASK_NUMBERS]
        numbers += [number_of(run, "rle") for run in values.get("rle", "").split(",")]
    else:
        numbers = [number_of(values.get(key), key) for key in _NUMBERS[kind]]
    return Shape(kind, label, tuple(numbers), number_of(values.get("rotation", "0"), "rotation"))


def object_of(shape: Shape, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """The object that a shape encloses. A turned box is the mask of its corners, and a box their bounds.

    Raises:
        ValueError: a shape that encloses nothing, or reaches far outside the image.
    """
    if shape.kind == "mask":
        return bitmap(shape.label, _mask(shape, size_hw), masks)
    if shape.kind == "polygon":
        return polygon(shape.label, [points_of(shape.numbers)], size_hw, masks=masks)
    if shape.kind == "box" and not shape.degrees:
        return box(shape.label, shape.numbers)
    outline, centre = _outline(shape)
    return polygon(shape.label, [turned(outline, centre, shape.degrees)], size_hw, masks=masks)


def between(one: Shape, other: Shape, share: float) -> Shape:
    """A tracked shape at a share of the time between two key frames, as CVAT draws it.

    Boxes and ellipses move in straight lines and turn the shorter way. The points of polygons move to those at the same
    share of the outline. A mask stays as it was.
    """
    if one.kind != other.kind or one.kind == "mask":
        return one
    if one.kind == "polygon":
        start, end = (np.array(shape.numbers).reshape(-1, 2) for shape in (one, other))
        pairs = _matched(_along(start), _along(end))
        points = start[pairs[:, 0]] * (1 - share) + end[pairs[:, 1]] * share  # [points, 2]
        return replace(one, numbers=tuple(points.reshape(-1).tolist()))
    numbers = tuple(a + (b - a) * share for a, b in zip(one.numbers, other.numbers, strict=True))
    way = (other.degrees - one.degrees + 180) % 360 - 180  # degrees, from -180 to 180
    return replace(one, numbers=numbers, degrees=(one.degrees + way * share) % 360)


def _along(points: np.ndarray) -> np.ndarray:
    """Where each point is on its closed outline, from 0 to 1."""
    sides = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    # A polygon of one repeated point has no length.
    return np.asarray((np.cumsum(sides) - sides) / max(sides.sum(), 1e-9))


def _matched(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of positions: each of one outline with the nearest of the other, then those left over the other way."""
    pairs = {(i, int(np.abs(other - at).argmin())) for i, at in enumerate(one)}
    left = set(range(len(other))) - {j for _, j in pairs}
    return np.array(sorted(pairs | {(int(np.abs(one - other[j]).argmin()), j) for j in left}))


def _outline(shape: Shape) -> tuple[Points, tuple[float, float]]:
    if shape.kind == "ellipse":
        x, y, width, height = shape.numbers
        return ellipse_outline((x, y), (abs(width), abs(height))), (x, y)
    x1, y1, x2, y2 = shape.numbers
    return corners_of(x1, y1, x2 - x1, y2 - y1), ((x1 + x2) / 2, (y1 + y2) / 2)


def _mask(shape: Shape, size_hw: tuple[int, int]) -> np.ndarray:
    """The runs as pixels of the whole image; those outside of it are cut off."""
    if not all(number.is_integer() for number in shape.numbers):
        raise ValueError("has a mask whose numbers are not whole")
    left, top, width, height, *runs = (int(number) for number in shape.numbers)
    if width < 1 or height < 1 or width * height > 4 * size_hw[0] * size_hw[1] + 4:  # before memory is taken for it
        raise ValueError(f"has a mask of {width}x{height} pixels, its image has {size_hw[1]}x{size_hw[0]}")
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"has a mask whose runs are of {sum(runs)} pixels, {width}x{height} are {width * height}")
    # runs alternate, unset pixels first
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(height, width)
    return cut_to(pixels, (left, top), size_hw)


def number_of(text: str | None, key: str) -> float:
    """The number in an attribute.

    Raises:
        ValueError: it is absent, or no finite number.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"has no number {key!r}, got {(text or '')[:40]!r}")
    return value
