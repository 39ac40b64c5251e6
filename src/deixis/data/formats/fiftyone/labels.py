"""FiftyOne's labels, in shares of the image, as objects."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from deixis.data.formats.coco.values import finite_number, finite_numbers
from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    bitmap,
    box,
    cut_to,
    points_of,
    points_of_pairs,
    polygon,
)

_MAX_MASK_BYTES = 1 << 29


def detection(row: Mapping[str, Any], label: str, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    """A detection: a box [left, top, width, height], perhaps with the mask of what is in it.

    Raises:
        ValueError: a box that is not four finite numbers, or a mask that cannot be read.
    """
    numbers = finite_numbers(row.get("bounding_box"), 4)
    if numbers is None:
        raise ValueError(f"has a bounding_box that is not four finite numbers, got {str(row.get('bounding_box'))[:60]}")
    x, y, width, height = numbers
    rows, columns = size_hw
    corners = (x * columns, y * rows, (x + width) * columns, (y + height) * rows)
    score = finite_number(row.get("confidence"))
    if row.get("mask") is None or not masks:
        return box(label, corners, score)
    pixels = _placed(_mask(row["mask"]), corners, size_hw)
    return bitmap(label, pixels, masks, score=score) if pixels.any() else box(label, corners, score)


def polyline(row: Mapping[str, Any], label: str, size_hw: tuple[int, int], masks: bool) -> AnnotatedObject | None:
    """A polygon of one part or several; None for a line that encloses nothing.

    Raises:
        ValueError: points that are no pairs of finite numbers.
    """
    if not (row.get("closed") or row.get("filled")):
        return None
    parts = []
    for shape in row.get("points") or []:
        parts.append(points_of((points_of_pairs(shape) * size_hw[::-1]).reshape(-1)))  # (x, y) by (width, height)
    return polygon(label, parts, size_hw, masks=masks, score=finite_number(row.get("confidence")))


def _mask(value: Any) -> np.ndarray:
    """A NumPy array in the bytes of a compressed .npy file, as base64 text in MongoDB's way to write bytes."""
    inner = value.get("$binary") if isinstance(value, Mapping) else value
    text: Any = inner.get("base64") if isinstance(inner, Mapping) else inner
    try:
        packed = base64.b64decode(text, validate=True)
        # With a limit, as a few bytes may unpack to any size.
        data = zlib.decompressobj().decompress(packed, _MAX_MASK_BYTES)
        file = BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
        # objects would be unpickled
        if len(shape) != 2 or kind.hasobject or shape[0] * shape[1] * kind.itemsize != len(data) - file.tell():
            raise ValueError(f"an array of shape {shape}")
        pixels = np.frombuffer(data, kind, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
    except (TypeError, binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"has a mask that cannot be read ({error})") from error
    return np.asarray(pixels != 0, np.uint8)


def _placed(mask: np.ndarray, corners: tuple[float, ...], size_hw: tuple[int, int]) -> np.ndarray:
    """The mask of a box's inside in the whole image, resized where it has another size than the box."""
    left, top, right, bottom = (round(value) for value in corners)
    # At most the image, as a box far larger than it would take memory for nothing.
    sides = (max(min(right - left, size_hw[1]), 1), max(min(bottom - top, size_hw[0]), 1))
    if mask.shape != sides[::-1]:
        mask = np.asarray(Image.fromarray(mask).resize(sides, Image.Resampling.NEAREST))
    return cut_to(mask, (left, top), size_hw)
