"""Answers as regions of Label Studio, and its clicks as points and boxes; coordinates there are in percent."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.formats.label_studio.brush import encode_brush
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask
from deixis.serving.labelling.label_config import Control
from deixis.serving.requests import Point

_EDGE_PX = 1.0  # that a polygon may be off the mask's outline


def region_of(
    control: Control, label: str, found: dict[str, Any], size_hw: tuple[int, int], score: float
) -> dict[str, Any] | None:
    """An object of an answer as a region of a control's kind; None where its mask is empty.

    Args:
        found: has `box_xyxy_px`, or `mask` as COCO's RLE, in pixels of the image.
    """
    value = _value(control.kind, found, size_hw)
    if value is None:
        return None
    height, width = size_hw
    return {
        "id": secrets.token_hex(5),
        "type": control.kind,
        "from_name": control.name,
        "to_name": control.to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, control.kind: [label]},
        "score": round(score, 5),
    }


def _value(kind: str, found: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any] | None:
    height, width = size_hw
    if "mask" not in found:
        return _rectangle(found["box_xyxy_px"], width, height)
    bitmap = np.ascontiguousarray(coco_mask.decode(found["mask"]))
    if not bitmap.any():
        return None
    if kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(bitmap)}
    if kind == "polygonlabels":
        return {"points": (_outline(bitmap) * (100 / np.array([width, height]))).round(4).tolist(), "closed": True}
    return _rectangle(box_of_mask(bitmap), width, height)


def _rectangle(box_xyxy_px: Sequence[float], width: int, height: int) -> dict[str, Any]:
    x1, y1, x2, y2 = np.clip(box_xyxy_px, 0, [width, height, width, height]).tolist()
    sides = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
    return {**{name: round(100 * share, 4) for name, share in sides.items()}, "rotation": 0}


def _outline(bitmap: np.ndarray) -> np.ndarray:
    """The outline [points, 2] of a mask's largest part, in pixels, with few points: a polygon has one part, no hole."""
    contours, _ = cv2.findContours(bitmap, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=lambda contour: (cv2.contourArea(contour), len(contour)))
    points: np.ndarray = cv2.approxPolyDP(largest, _EDGE_PX, True).reshape(-1, 2) + 0.5  # through the middle of pixels
    if len(points) >= 3:
        return points
    left, top, right, bottom = box_of_mask(bitmap)  # of a line or a pixel
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def clicks_of(
    results: Sequence[Any], size_hw: tuple[int, int]
) -> tuple[list[Point], list[tuple[float, float, float, float]], str]:
    """What a user has clicked: points, boxes, both in pixels, and the label.

    Raises:
        DataError: regions without coordinates.
    """
    height, width = size_hw
    points: list[Point] = []
    boxes: list[tuple[float, float, float, float]] = []
    label = ""
    for region in results:
        try:
            kind, value = region["type"], region["value"]
            x, y = width * float(value["x"]) / 100, height * float(value["y"]) / 100
            if kind.startswith("rectangle"):
                boxes.append((x, y, x + width * float(value["width"]) / 100, y + height * float(value["height"]) / 100))
            else:
                x, y = min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))
                points.append(Point(x=x, y=y, positive=bool(int(region.get("is_positive", 1)))))
            label = next((str(one) for one in value.get(kind) or value.get("labels") or ()), label)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError("context: expected points and rectangles with x and y in percent") from error
    return points, boxes, label
