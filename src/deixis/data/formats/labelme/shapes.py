"""The shapes of a labelme file as objects."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import finite_number, mask_rle
from deixis.errors import DataError
from deixis.geometry.rle import MAX_COORDINATE_PX, bitmap_rle
from deixis.records import Rle
from deixis.text import clean_name

CROWD_FLAG = "crowd"  # labelme has no such flag of its own, but lets shapes carry any
_NO_AREA = {"point", "points", "line", "linestrip"}
_CIRCLE_POINTS = 64
_Points = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Thing:
    """One object; `mask_rle` is None for a rectangle, or where masks are not asked for."""

    label: str
    box_xyxy_px: tuple[float, float, float, float]
    area_px: float
    crowd: bool
    mask_rle: Rle | None


def read_shapes(
    shapes: Sequence[Any], size_hw: tuple[int, int], masks: bool, where: str
) -> tuple[list[Thing], list[str]]:
    """The objects of a file, and the places of the shapes that enclose nothing.

    Raises:
        DataError: a shape without label or points, or of an unknown kind; the message gives its number.
    """
    things: list[Thing] = []
    groups: dict[tuple[str, Any], int] = {}
    ignored = []
    for number, shape in enumerate(shapes, start=1):
        place = f"{where}: shape {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise DataError(f"{place}: has no label; add one")
        kind = shape.get("shape_type") or "polygon"  # labelme before 3.10 had only polygons
        if kind in _NO_AREA:
            ignored.append(place)
            continue
        if kind not in _READ:
            raise DataError(f"{place}: shape_type {kind!r} is not one of {', '.join([*_READ, *sorted(_NO_AREA)])}")
        try:
            thing = _READ[kind](shape, _points(shape, place), size_hw, place, masks)
        except ValueError as error:
            raise DataError(f"{place}: {error}; correct or remove the shape") from error
        group = (thing.label, shape.get("group_id"))
        if group[1] is not None and group in groups:
            things[groups[group]] = _joined(things[groups[group]], thing)
            continue
        groups[group] = len(things)
        things.append(thing)
    return things, ignored


def _points(shape: Mapping[str, Any], where: str) -> _Points:
    rows = shape.get("points")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise DataError(f"{where}: points must be a list of [x, y], got {str(rows)[:80]}")
    numbers = [finite_number(value) for row in rows for value in row]
    if any(number is None or abs(number) > MAX_COORDINATE_PX for number in numbers):
        raise DataError(f"{where}: points must be finite numbers of at most {MAX_COORDINATE_PX}, got {str(rows)[:80]}")
    return np.array(numbers, np.float64).reshape(-1, 2)


def _polygon(shape: Mapping[str, Any], points: _Points, size_hw: tuple[int, int], where: str, masks: bool) -> Thing:
    if len(points) < 3:
        raise DataError(f"{where}: a polygon needs three points or more, got {len(points)}")
    x, y = points.T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    return _thing(shape, points, area, mask_rle([points.reshape(-1).tolist()], size_hw) if masks else None)


def _rectangle(shape: Mapping[str, Any], points: _Points, size_hw: tuple[int, int], where: str, masks: bool) -> Thing:
    del size_hw, masks
    if len(points) not in (2, 4):
        raise DataError(f"{where}: a rectangle needs two opposite corners, or all four, got {len(points)} points")
    sides = points.max(0) - points.min(0)
    return _thing(shape, points, float(sides.prod()), None)


def _cuboid(shape: Mapping[str, Any], points: _Points, size_hw: tuple[int, int], where: str, masks: bool) -> Thing:
    """X-AnyLabeling's: corners of the front and the back, whose outline is the object's."""
    return _polygon(
        shape, cv2.convexHull(points.astype(np.float32)).reshape(-1, 2).astype(np.float64), size_hw, where, masks
    )


def _circle(shape: Mapping[str, Any], points: _Points, size_hw: tuple[int, int], where: str, masks: bool) -> Thing:
    if len(points) != 2:
        raise DataError(f"{where}: a circle needs its centre and a point on it, got {len(points)} points")
    radius = float(np.hypot(*(points[1] - points[0])))
    turns = np.arange(_CIRCLE_POINTS) * (2 * math.pi / _CIRCLE_POINTS)
    outline = points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    corners = np.stack([points[0] - radius, points[0] + radius])
    rle = mask_rle([outline.reshape(-1).tolist()], size_hw) if masks else None
    return _thing(shape, corners, math.pi * radius**2, rle)


def _mask(shape: Mapping[str, Any], points: _Points, size_hw: tuple[int, int], where: str, masks: bool) -> Thing:
    """A bitmap as PNG text, laid at its first corner; the second corner is its last pixel."""
    if len(points) != 2:
        raise DataError(f"{where}: a mask needs its first and its last corner, got {len(points)} points")
    try:
        with Image.open(BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
            bitmap = np.array(image.convert("L")) > 0
    except (KeyError, TypeError, binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: mask is no PNG as base64 text ({error}); correct the shape") from error
    left, top = (round(value) for value in points[0].tolist())
    height, width = size_hw
    if left < 0 or top < 0 or top + bitmap.shape[0] > height or left + bitmap.shape[1] > width:
        raise DataError(f"{where}: a mask of {bitmap.shape[::-1]} at {(left, top)} reaches outside {(width, height)}")
    whole = np.zeros(size_hw, np.uint8)
    whole[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
    rle = bitmap_rle(whole)
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    return _thing(shape, np.array([[x, y], [x + w, y + h]]), float(whole.sum()), rle if masks else None)


_READ: dict[str, Callable[[Mapping[str, Any], _Points, tuple[int, int], str, bool], Thing]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
    **dict.fromkeys(("rotation", "oriented_rectangle", "rotated_rectangle", "rotbox"), _polygon),  # four corners
    **dict.fromkeys(("quadrilateral", "triangle"), _polygon),
    "cuboid": _cuboid,
}


def _thing(shape: Mapping[str, Any], points: _Points, area_px: float, rle: Rle | None) -> Thing:
    flags = shape.get("flags")
    crowd = isinstance(flags, dict) and bool(flags.get(CROWD_FLAG))
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return Thing(clean_name(shape["label"]), (x1, y1, x2, y2), area_px, crowd, rle)


def _joined(one: Thing, other: Thing) -> Thing:
    """Two parts of one object."""
    (a1, b1, a2, b2), (c1, d1, c2, d2) = one.box_xyxy_px, other.box_xyxy_px
    rle = None
    if one.mask_rle is not None and other.mask_rle is not None:
        rle = coco_mask.merge([one.mask_rle, other.mask_rle])
    box = (min(a1, c1), min(b1, d1), max(a2, c2), max(b2, d2))
    return Thing(one.label, box, one.area_px + other.area_px, one.crowd or other.crowd, rle)
