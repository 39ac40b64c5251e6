"""Objects as annotation tools draw them: boxes, polygons, ellipses and bitmaps, each with its bounds and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.geometry.masks import box_of_mask
from deixis.geometry.rle import bitmap_rle, polygons_rle
from deixis.records import Rle

MAX_MASK_PIXELS = 1 << 27
_Points = Float[np.ndarray, "points 2"]
_BoxPx = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """One object as it was drawn; `area_px` None is the box's, `mask_rle` None where there is no mask, and `score` None
    where a person drew it."""

    name: str
    box_xyxy_px: _BoxPx
    area_px: float | None = None
    mask_rle: Rle | None = None
    crowd: bool = False
    score: float | None = None


def polygon(name: str, points_px: _Points, size_hw: tuple[int, int], masks: bool) -> Drawn:
    """An object drawn as a closed line; its box is the line's bounds.

    Raises:
        ValueError: fewer than three points, or one far outside the image.
    """
    if len(points_px) < 3:
        raise ValueError(f"a polygon needs three points or more, got {len(points_px)}")
    x, y = points_px.T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    rle = polygons_rle([points_px.reshape(-1)], size_hw) if masks else None
    return Drawn(name, bounds(points_px), area, rle)


def ellipse_points(centre: Sequence[float], radii: Sequence[float], angle: float = 0.0, count: int = 64) -> _Points:
    """Points of an ellipse, in turn; `angle` in radians, clockwise as images are seen."""
    turns = np.arange(count) * (2 * np.pi / count)
    flat = np.stack([radii[0] * np.cos(turns), radii[1] * np.sin(turns)], axis=1)
    cos, sin = np.cos(angle), np.sin(angle)
    points: np.ndarray = flat @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(centre, np.float64)
    return points


def bounds(points_px: _Points) -> _BoxPx:
    """The upright box around points."""
    (x1, y1), (x2, y2) = points_px.min(0).tolist(), points_px.max(0).tolist()
    return x1, y1, x2, y2


def with_holes(outer: Drawn, holes: Sequence[_Points], size_hw: tuple[int, int]) -> Drawn:
    """An object drawn as a polygon without the pixels of polygons inside it.

    Raises:
        ValueError: a hole with a point far outside the image.
    """
    holes = [points for points in holes if len(points) >= 3]
    if not holes:
        return outer
    area = (outer.area_px or 0) - sum(polygon(outer.name, points, size_hw, False).area_px or 0 for points in holes)
    rle = outer.mask_rle
    if rle is not None:
        inner = coco_mask.decode(polygons_rle([points.reshape(-1) for points in holes], size_hw))
        rle = bitmap_rle(coco_mask.decode(rle) & ~inner.astype(bool))
    return replace(outer, area_px=max(area, 0.0), mask_rle=rle)


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
            return np.asarray(image if image.mode == "P" else image.convert("L")) > 0
    except (OSError, SyntaxError) as error:
        raise ValueError(f"has a bitmap that is no picture ({error})") from error


def bitmap_drawn(
    name: str, bitmap: Bool[np.ndarray, "h w"], left_top: tuple[int, int], size_hw: tuple[int, int]
) -> Drawn:
    """An object drawn as pixels, laid at a place of its image.

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
    x1, y1, x2, y2 = box_of_mask(bitmap)
    return Drawn(name, (left + x1, top + y1, left + x2, top + y2), float(bitmap.sum()), bitmap_rle(whole))


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
