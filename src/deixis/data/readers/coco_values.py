"""The values of a COCO annotation, each from whatever JSON holds to what deixis holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from deixis.records import Rle


def finite_number(value: Any) -> float | None:
    """A JSON number that is finite, else None; `true` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def box_xyxy_px(bbox: Any) -> tuple[float, float, float, float] | None:
    """COCO's [x, y, width, height] as corners; None where it is not four finite numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = (finite_number(value) for value in bbox)
    if x is None or y is None or width is None or height is None:
        return None
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
        ValueError: a segmentation of an unknown form, or an RLE of another size than the image.
    """
    if not segmentation:
        return None
    height, width = size_hw
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)) if polygons else None
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(f"is neither polygons nor RLE but a {type(segmentation).__name__}")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"has size {segmentation.get('size')}, its image is {[height, width]} (height, width)")
    counts = segmentation["counts"]
    runs = _unpack_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("has counts that are neither RLE text nor whole numbers")
    if sum(runs) != height * width:
        raise ValueError(f"has counts for {sum(runs)} pixels, its image has {height * width}")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode("ascii")}
    return dict(coco_mask.frPyObjects(segmentation, height, width))


def _unpack_counts(text: str) -> list[int]:
    """The runs in COCO's RLE text: 5 bits a character above `0`, little end first, each run less the one two before.

    Read here because pycocotools takes damaged text as it comes and returns masks of undefined pixels.
    """
    runs: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - ord("0")
        if not 0 <= bits < 64:
            raise ValueError(f"has {char!r} in its counts, which RLE text does not use")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("has counts that end in the middle of a run")
    return runs


def _is_polygon(polygon: Any) -> bool:
    """At least three points; pycocotools would take four numbers for a box."""
    if not isinstance(polygon, list):
        raise ValueError("has a polygon that is not a list of numbers")
    if any(finite_number(value) is None for value in polygon):
        raise ValueError("has a polygon with values that are no finite numbers")
    return len(polygon) >= 6 and len(polygon) % 2 == 0
