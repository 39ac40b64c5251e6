"""The values of a COCO annotation, each from whatever JSON holds to what deixis holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from deixis.geometry.rle import counts_rle, polygons_rle
from deixis.records import Rle, size_fault


def finite_number(value: Any) -> float | None:
    """A JSON number that is finite, else None; `true` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def finite_numbers(values: Any, count: int) -> list[float] | None:
    """A list of so many JSON numbers, all finite; else None."""
    numbers = [finite_number(value) for value in values] if isinstance(values, list) else []
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(numbers) == count else None


def whole_number(value: Any) -> int | None:
    """A whole number of at most 63 bits: an integer, a float without a fraction, or its digits as text; else None."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        if not digits.isdecimal() or len(digits) > 19:  # 2 ** 63 has 19 digits
            return None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 63:  # NaN fails this too
        return None
    return int(value) if value == int(value) else None


def image_size(height: Any, width: Any) -> tuple[int, int]:
    """The (height, width) that a file gives for an image.

    Raises:
        ValueError: they are no numbers, or there can be no image of this size.
    """
    rows, columns = finite_number(height), finite_number(width)
    if rows is None or columns is None:
        shown = f"{str(height)[:30]!r} and {str(width)[:30]!r}"
        raise ValueError(f"height and width must be positive numbers, got {shown}")
    fault = size_fault((rows, columns))
    if fault is not None:
        raise ValueError(fault)
    return int(rows), int(columns)


def box_xyxy_px(bbox: Any) -> tuple[float, float, float, float] | None:
    """COCO's [x, y, width, height] as corners; None where it is not four finite numbers."""
    numbers = finite_numbers(bbox, 4)
    if numbers is None:
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def integer_ids(ids: Sequence[int | str]) -> tuple[dict[int | str, int], bool]:
    """Ids as integers, and whether they are those given: numeric text counts, other text is numbered from 1."""
    texts = [str(value).strip() for value in ids]
    if all(text.removeprefix("-").isdecimal() for text in texts) and len({int(text) for text in texts}) == len(ids):
        return {value: int(text) for value, text in zip(ids, texts, strict=True)}, True
    return {value: number for number, value in enumerate(ids, start=1)}, False


def mask_rle(segmentation: Any, size_hw: tuple[int, int]) -> Rle | None:
    """Polygons, uncompressed or compressed RLE as one compressed RLE; None where there is no usable segmentation.

    Raises:
        ValueError: a segmentation of an unknown form, a point far outside the image, an RLE of another size, or an
            impossible image size.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        polygons = polygons_of(segmentation)
        return polygons_rle(polygons, size_hw) if polygons else None
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(f"is neither polygons nor RLE but a {type(segmentation).__name__}")
    # COCO's RLE has [height, width], while its boxes have x and width first.
    if segmentation.get("size") != list(size_hw):
        size = str(segmentation.get("size"))[:60]
        raise ValueError(f"has size {size}, its image is {list(size_hw)} (height, width)")
    return counts_rle(segmentation["counts"], size_hw)


def polygons_of(segmentation: Any, depth: int = 3) -> list[list[float]]:
    """Polygons as lists x1, y1, x2, y2, …, of at least three points, from any depth of lists around them.

    Exporters write a polygon without the list around it, with one too many, or as pairs [x, y]. Lists that are too
    short are left out; pycocotools would take four numbers for a box.

    Raises:
        ValueError: something else than lists of finite numbers.
    """
    if not isinstance(segmentation, list) or not depth:
        raise ValueError("has a polygon that is not a list of numbers")
    if not segmentation:
        return []
    if not any(isinstance(value, list) for value in segmentation):
        if any(finite_number(value) is None for value in segmentation):
            raise ValueError("has a polygon with values that are no finite numbers")
        return [segmentation] if len(segmentation) >= 6 and len(segmentation) % 2 == 0 else []
    if len(segmentation) >= 3 and all(finite_numbers(value, 2) is not None for value in segmentation):
        return [[number for point in segmentation for number in point]]
    return [polygon for part in segmentation for polygon in polygons_of(part, depth - 1)]
