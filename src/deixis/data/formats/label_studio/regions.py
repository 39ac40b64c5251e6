"""Regions of Label Studio's results, in percent of the image, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.label_studio.brush import decode_brush
from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    Points,
    bitmap,
    box,
    corners_of,
    ellipse_outline,
    points_of,
    polygon,
    turned,
)

LABELS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "labels")


def labels_of(value: Mapping[str, Any]) -> list[str]:
    """The class names of a region; none where it has none, as points, relations and choices."""
    names: Any = next((value[key] for key in LABELS if value.get(key)), [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def objects_of(
    value: Mapping[str, Any], size_hw: tuple[int, int], masks: bool, score: float | None
) -> list[AnnotatedObject]:
    """One object for each label of a region.

    A rectangle turns about its left top corner, an ellipse about its centre. A turned one is the mask of its outline.

    Raises:
        ValueError: values that are absent or no numbers, or a brush that cannot be read.
    """
    if "rle" in value:
        pixels = decode_brush(value["rle"], size_hw)
        names = labels_of(value) if pixels.any() else []  # a brush that was erased again leaves its region
        return [bitmap(name, pixels, masks, score=score) for name in names]
    scale = np.array(size_hw[::-1]) / 100
    degrees = _number(value, "rotation", 0.0)
    if "points" in value:
        outline = _points(value["points"]) * scale
    elif "radiusX" in value:
        x, y = _pair(value, "x", "y", scale)
        outline = turned(ellipse_outline((x, y), _pair(value, "radiusX", "radiusY", scale)), (x, y), degrees)
    else:
        (x, y), (width, height) = _pair(value, "x", "y", scale), _pair(value, "width", "height", scale)
        if not degrees:
            return [box(name, (x, y, x + width, y + height), score) for name in labels_of(value)]
        outline = turned(corners_of(x, y, width, height), (x, y), degrees)
    outline = points_of(outline.reshape(-1).tolist())
    return [polygon(name, [outline], size_hw, masks=masks, score=score) for name in labels_of(value)]


def _points(rows: Any) -> Points:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ValueError("has points that are no list of [x, y]")
    numbers = [finite_number(number) for row in rows for number in row]
    if any(number is None for number in numbers):
        raise ValueError("has points that are no finite numbers")
    return points_of([number for number in numbers if number is not None])


def _pair(value: Mapping[str, Any], first: str, second: str, scale: np.ndarray) -> tuple[float, float]:
    return _number(value, first) * float(scale[0]), _number(value, second) * float(scale[1])


def _number(value: Mapping[str, Any], key: str, default: float | None = None) -> float:
    number = finite_number(value.get(key, default))
    if number is None:
        raise ValueError(f"has no number {key!r}, got {str(value.get(key))[:40]!r}")
    return number
