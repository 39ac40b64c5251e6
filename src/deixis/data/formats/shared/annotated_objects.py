"""Objects as annotation tools draw them: boxes, turned boxes, polygons, ellipses and masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import finite_numbers
from deixis.geometry.masks import joined_outline
from deixis.geometry.rle import MAX_COORDINATE_PX, bitmap_rle, polygons_rle
from deixis.records import Rle

_ELLIPSE_POINTS = 64  # a multiple of 4, so that the four extremes are among them
Points = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an image; `area_px` None is the box's, `mask_rle` None where there is no mask or none is asked for,
    and `score` None where a person drew it."""

    label: str
    box_xyxy_px: tuple[float, float, float, float]
    area_px: float | None = None
    mask_rle: Rle | None = None
    is_crowd: bool = False
    score: float | None = None


def points_of(numbers: Sequence[float] | np.ndarray) -> Points:
    """Numbers x1, y1, x2, y2, … as points.

    Raises:
        ValueError: an odd count, or numbers that are not finite or beyond `MAX_COORDINATE_PX`.
    """
    if len(numbers) % 2:
        raise ValueError(f"has {len(numbers)} coordinates, which are no pairs x, y")
    points = np.asarray(numbers, np.float64).reshape(-1, 2)
    if not (np.abs(points) <= MAX_COORDINATE_PX).all():
        raise ValueError(f"has coordinates that are not finite numbers of at most {MAX_COORDINATE_PX}")
    return points


def points_of_pairs(rows: Any) -> Points:
    """A list of pairs [x, y], as JSON has it, as points.

    Raises:
        ValueError: another value, or numbers that are not finite.
    """
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ValueError(f"points must be a list of [x, y], got {str(rows)[:80]}")
    numbers = finite_numbers([number for row in rows for number in row], 2 * len(rows))
    if numbers is None:
        raise ValueError(f"points must be finite numbers, got {str(rows)[:80]}")
    return np.array(numbers, np.float64).reshape(-1, 2)


def box(label: str, corners_px: Sequence[float], score: float | None = None) -> AnnotatedObject:
    """An upright box by two opposite corners, x1, y1, x2, y2 in any order.

    Raises:
        ValueError: see `points_of`.
    """
    points = points_of(corners_px)
    if len(points) != 2:
        raise ValueError(f"has {len(points)} corners, a box has 2")
    area = float((points.max(0) - points.min(0)).prod())
    return AnnotatedObject(label, bounds(points), area, score=score)


def polygon(
    label: str, parts_px: Sequence[Points], size_hw: tuple[int, int], *, masks: bool, score: float | None = None
) -> AnnotatedObject:
    """One object of one polygon or several parts; a turned box by its corners, an ellipse by its outline.

    Raises:
        ValueError: no part, or one of fewer than three points; see `polygons_rle` for others.
    """
    if not parts_px or any(len(part) < 3 for part in parts_px):
        raise ValueError(f"a polygon needs three points or more, got {min(map(len, parts_px), default=0)}")
    box = bounds(np.concatenate(parts_px))
    rle = polygons_rle([part.reshape(-1) for part in parts_px], size_hw) if masks else None
    area = _area(parts_px[0]) if len(parts_px) == 1 else _union_px(map(_area, parts_px), box, rle)
    return AnnotatedObject(label, box, area, rle, score=score)


def joined(parts: Sequence[AnnotatedObject]) -> AnnotatedObject:
    """One object of its parts; with a mask where all of them have one."""
    if len(parts) == 1:
        return parts[0]
    whole = bounds(np.array([part.box_xyxy_px for part in parts]).reshape(-1, 2))
    masks = [part.mask_rle for part in parts if part.mask_rle is not None]
    rle = dict(coco_mask.merge(masks)) if len(masks) == len(parts) else None
    area = _union_px((part.area_px or 0.0 for part in parts), whole, rle)
    crowd = any(part.is_crowd for part in parts)
    return replace(parts[0], box_xyxy_px=whole, area_px=area, mask_rle=rle, is_crowd=crowd)


def _union_px(areas: Iterable[float], box: Sequence[float], rle: Rle | None) -> float:
    """The area of parts that may overlap: the mask's, else their sum, at most the area of the box around them."""
    x1, y1, x2, y2 = box
    return float(coco_mask.area(rle)) if rle is not None else min(sum(areas), (x2 - x1) * (y2 - y1))


def with_holes(outer: AnnotatedObject, holes: Sequence[Points], size_hw: tuple[int, int]) -> AnnotatedObject:
    """An object drawn as a polygon without the pixels of polygons inside it.

    Raises:
        ValueError: a hole with a point far outside the image.
    """
    holes = [points for points in holes if len(points) >= 3]
    if not holes:
        return outer
    if outer.mask_rle is None:
        return replace(outer, area_px=max((outer.area_px or 0) - sum(map(_area, holes)), 0.0))
    inner = coco_mask.decode(polygons_rle([points.reshape(-1) for points in holes], size_hw))
    rle = bitmap_rle(coco_mask.decode(outer.mask_rle) & ~inner.astype(bool))
    return replace(outer, area_px=float(coco_mask.area(rle)), mask_rle=rle)  # holes may overlap, or reach out


def bitmap(
    label: str, pixels: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"], masks: bool, *, score: float | None = None
) -> AnnotatedObject:
    """A mask in the size of its image; its box is the mask's.

    Raises:
        ValueError: no pixel is set.
    """
    return from_rle(label, bitmap_rle(pixels), masks, score=score)


def from_rle(label: str, rle: Rle, masks: bool, *, score: float | None = None) -> AnnotatedObject:
    """A mask as RLE in the size of its image; its box is the mask's.

    Raises:
        ValueError: no pixel is set.
    """
    area = float(coco_mask.area(rle))
    if not area:
        raise ValueError("has a mask without a pixel")
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return AnnotatedObject(label, (x, y, x + width, y + height), area, rle if masks else None, score=score)


def outline_of(rle: Rle, box_xyxy_px: Float[np.ndarray, " 4"]) -> np.ndarray:
    """A mask's outline, parts and holes joined; the box's where the mask is empty, so a file never mixes kinds."""
    points = joined_outline(np.ascontiguousarray(coco_mask.decode(rle)))
    x1, y1, x2, y2 = box_xyxy_px.tolist()
    return points if len(points) else corners_of(x1, y1, x2 - x1, y2 - y1)


def corners_of(x: float, y: float, width: float, height: float) -> Points:
    """The four corners of an upright box, clockwise from the left top."""
    return points_of([x, y, x + width, y, x + width, y + height, x, y + height])


def ellipse_outline(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Points:
    """Points around an ellipse, its four extremes among them where it is upright; degrees as in `turned`.

    Raises:
        ValueError: see `points_of`.
    """
    turns = np.arange(_ELLIPSE_POINTS) * (2 * math.pi / _ELLIPSE_POINTS)
    upright = np.array(centre) + np.stack([np.cos(turns), np.sin(turns)], 1) * radii
    return points_of((turned(upright, centre, degrees) if degrees else upright).reshape(-1).tolist())


def turned(points: Points, about: tuple[float, float], degrees: float) -> Points:
    """Points turned clockwise, as seen in an image, whose y runs down.

    >>> turned(np.array([[2.0, 1.0]]), (1.0, 1.0), 90.0).round(6).tolist()
    [[1.0, 2.0]]
    """
    angle = math.radians(degrees)
    # The transpose of the usual rotation matrix, since points are rows; y runs down, so it turns clockwise.
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray((points - about) @ matrix + about)


def bounds(points: Points) -> tuple[float, float, float, float]:
    """The upright box around points."""
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return x1, y1, x2, y2


def _area(points: Points) -> float:
    x, y = points.T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2  # the shoelace formula


MAX_MASK_PIXELS = 1 << 27  # half a gigabyte as numbers of 32 bits


def png_bitmap(data: bytes, max_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The drawn pixels of a small picture: those that are not transparent, or where nothing is not black.

    Raises:
        ValueError: no picture, or one larger than `max_hw`.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.height > max_hw[0] or image.width > max_hw[1]:
                raise ValueError(f"has a bitmap of {image.size}, larger than its image")
            if image.mode in ("RGBA", "LA"):
                return np.asarray(image)[..., -1] > 0
            # Of a palette the indices count, not its colours.
            return np.asarray(image if image.mode == "P" else image.convert("L")) > 0
    except (OSError, SyntaxError) as error:
        raise ValueError(f"has a bitmap that is no picture ({error})") from error


def cut_to(
    bitmap: UInt8[np.ndarray, "rows columns"], left_top: tuple[int, int], size_hw: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """A small mask at its place in its image, without what lies outside of that."""
    (left, top), (rows, columns) = left_top, bitmap.shape
    whole = np.zeros(size_hw, np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + columns, size_hw[1]), min(top + rows, size_hw[0])
    if x1 < x2 and y1 < y2:
        whole[y1:y2, x1:x2] = bitmap[y1 - top : y2 - top, x1 - left : x2 - left]
    return whole


def laid_at(
    bitmap: Bool[np.ndarray, "rows columns"], left_top: tuple[int, int], size_hw: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """A small mask at its place in its image.

    Raises:
        ValueError: it reaches outside the image, or has no pixel.
    """
    (left, top), (height, width) = left_top, bitmap.shape
    if left < 0 or top < 0 or top + height > size_hw[0] or left + width > size_hw[1]:
        raise ValueError(f"has a bitmap of {(width, height)} at {left_top}, outside its image of {size_hw[::-1]}")
    if not bitmap.any():
        raise ValueError("has a bitmap without a pixel")
    whole = np.zeros(size_hw, bool)
    whole[top : top + height, left : left + width] = bitmap
    return whole


def colour_values(image: Image.Image) -> Int[np.ndarray, "h w"]:
    """The colours of a picture as numbers: red + 256 green + 65536 blue.

    Raises:
        ValueError: it is larger than a mask can be.
    """
    if image.width * image.height > MAX_MASK_PIXELS:
        raise ValueError(f"has {image.width}x{image.height} pixels, more than the {MAX_MASK_PIXELS} of a mask")
    red, green, blue = (np.asarray(band, np.int32) for band in image.convert("RGB").split())
    values: np.ndarray = red + 256 * green + 65536 * blue
    return values
