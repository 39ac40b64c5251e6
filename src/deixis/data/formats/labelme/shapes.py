"""The shapes of a labelme file as objects."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    Points,
    box,
    cut_to,
    ellipse_outline,
    joined,
    points_of_pairs,
    polygon,
)
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.text import clean_name

CROWD_FLAG = "crowd"  # labelme has no such flag of its own, but lets shapes carry any
_NO_AREA = {"point", "points", "line", "linestrip"}


def read_shapes(
    shapes: Sequence[Any], size_hw: tuple[int, int], masks: bool, where: str
) -> tuple[list[AnnotatedObject], list[str]]:
    """The objects of a file, and the places of the shapes that enclose nothing.

    Raises:
        DataError: a shape without label or points, or of an unknown kind; the message gives its number.
    """
    groups: dict[Any, list[AnnotatedObject]] = {}
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
            drawn = _READ[kind](shape, points_of_pairs(shape.get("points")), size_hw, masks)
        except ValueError as error:
            raise DataError(f"{place}: {error}; correct or remove the shape") from error
        flags = shape.get("flags")
        thing = replace(drawn, is_crowd=isinstance(flags, dict) and bool(flags.get(CROWD_FLAG)))
        # A number alone does not join shapes of different classes.
        key = number if shape.get("group_id") is None else (thing.label, shape["group_id"])
        groups.setdefault(key, []).append(thing)
    return [joined(parts) for parts in groups.values()], ignored


def _polygon(shape: Mapping[str, Any], points: Points, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    return polygon(_label(shape), [points], size_hw, masks=masks)


def _rectangle(shape: Mapping[str, Any], points: Points, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    del size_hw, masks
    # labelme writes two, X-AnyLabeling all four.
    if len(points) not in (2, 4):
        raise ValueError(f"a rectangle needs two opposite corners, or all four, got {len(points)} points")
    return box(_label(shape), [*points.min(0), *points.max(0)])


def _cuboid(shape: Mapping[str, Any], points: Points, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """X-AnyLabeling's: corners of the front and the back, whose outline is the object's."""
    outline = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2).astype(np.float64)
    return polygon(_label(shape), [outline], size_hw, masks=masks)


def _circle(shape: Mapping[str, Any], points: Points, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    if len(points) != 2:
        raise ValueError(f"a circle needs its centre and a point on it, got {len(points)} points")
    radius = float(np.hypot(*(points[1] - points[0])))
    drawn = polygon(_label(shape), [ellipse_outline(tuple(points[0]), (radius, radius))], size_hw, masks=masks)
    return replace(drawn, area_px=math.pi * radius**2)  # the outline of 64 points has 0.2 % less


def _mask(shape: Mapping[str, Any], points: Points, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """A bitmap as PNG text, laid at its first corner; the second corner is its last pixel."""
    if len(points) != 2:
        raise ValueError(f"a mask needs its first and its last corner, got {len(points)} points")
    try:
        with Image.open(BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
            pixels = np.array(image.convert("L")) > 0
    except (KeyError, TypeError, binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"mask is no PNG as base64 text ({error})") from error
    left, top = (round(value) for value in points[0].tolist())
    height, width = size_hw
    if left < 0 or top < 0 or top + pixels.shape[0] > height or left + pixels.shape[1] > width:
        raise ValueError(f"a mask of {pixels.shape[::-1]} at {(left, top)} reaches outside {(width, height)}")
    rle = bitmap_rle(cut_to(pixels.astype(np.uint8), (left, top), size_hw))
    x, y, w, h = coco_mask.toBbox(rle).tolist()  # an empty mask has a box without area, which is dropped and counted
    return AnnotatedObject(_label(shape), (x, y, x + w, y + h), float(pixels.sum()), rle if masks else None)


_READ: dict[str, Callable[[Mapping[str, Any], Points, tuple[int, int], bool], AnnotatedObject]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
    **dict.fromkeys(("rotation", "oriented_rectangle", "rotated_rectangle", "rotbox"), _polygon),  # four corners
    **dict.fromkeys(("quadrilateral", "triangle"), _polygon),
    "cuboid": _cuboid,
}


def _label(shape: Mapping[str, Any]) -> str:
    return clean_name(shape["label"])
