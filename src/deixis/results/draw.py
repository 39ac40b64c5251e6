"""Boxes with their names on pictures, legible at any size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from deixis.geometry.masks import box_of_mask
from deixis.records import Sample

if TYPE_CHECKING:
    from deixis.results.detections import Detections


LEGIBLE_LONG_SIDE_PX = 480  # smaller pictures are enlarged by a whole factor, so that names can be read on them
Rgb = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Distinct on most photographs and for most colour-blind readers; later classes go round the colour circle.
PALETTE_RGB: tuple[Rgb, ...] = (
    (0, 150, 255),
    (255, 105, 30),
    (30, 185, 110),
    (225, 50, 130),
    (250, 200, 20),
    (135, 90, 235),
    (0, 200, 205),
    (230, 40, 45),
    (150, 200, 40),
    (180, 115, 60),
)


@dataclass(frozen=True)
class Mark:
    """One box to draw."""

    box: Rectangle
    text: str
    colour: Rgb


def class_colour(class_id: int) -> Rgb:
    """The colour of a class, the same in every picture.

    >>> class_colour(0)
    (0, 150, 255)
    """
    if class_id < len(PALETTE_RGB):
        return PALETTE_RGB[class_id]
    # the golden ratio: neighbouring ids get far hues
    red, green, blue = colorsys.hsv_to_rgb(class_id * 0.61803398875 % 1, 0.55 + 0.4 * (class_id % 2), 0.92)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(image: UInt8[np.ndarray, "h w 3"], objects: Detections | Sample) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture with its objects framed and named.

    Args:
        image: RGB in the frame of the boxes.
        objects: detections (named with their scores), or a sample, whose annotations are drawn.

    Returns:
        A new picture; one whose long side is under 480 pixels comes back enlarged by a whole factor.
    """
    canvas, factor = enlarged(image)
    painter = ImageDraw.Draw(canvas)
    line = max(3, round(max(canvas.size) / 200))
    marks = _marks(objects, factor)
    for mark in reversed(marks):  # the best on top
        _frame(painter, mark, line)
    paint_names(canvas, marks, line)
    return np.asarray(canvas)


def enlarged(image: UInt8[np.ndarray, "h w 3"]) -> tuple[Image.Image, int]:
    """The picture, enlarged by a whole factor where its long side is under 480 pixels, and the factor."""
    height, width = image.shape[:2]
    factor = max(1, -(-LEGIBLE_LONG_SIDE_PX // max(height, width)))  # a whole factor keeps pixels square
    return Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC), factor


def _marks(objects: Detections | Sample, factor: int) -> list[Mark]:
    """What to draw, best first."""
    if not isinstance(objects, Sample):
        boxes, class_ids = objects.boxes_xyxy_px, objects.class_ids
        texts = [f"{label} {score:.2f}" for label, score in zip(objects.labels, objects.scores, strict=True)]
        if objects.track_ids is not None:
            texts = [
                f"{text} #{track}" if track > 0 else text for text, track in zip(texts, objects.track_ids, strict=True)
            ]
            class_ids = np.where(objects.track_ids > 0, objects.track_ids, class_ids)  # a colour for each object
    else:
        boxes, class_ids = objects.instances.boxes_xyxy_px, objects.instances.class_ids
        texts = [
            objects.vocabulary.names[c] + (" (crowd)" if crowd else "")
            for c, crowd in zip(class_ids, objects.instances.is_crowd, strict=True)
        ]
    return [
        Mark(_rectangle(box * factor), text, class_colour(int(c)))
        for box, text, c in zip(boxes, texts, class_ids, strict=True)
    ]


def _rectangle(box_xyxy_px: Float[np.ndarray, " 4"]) -> Rectangle:
    x0, y0, x1, y1 = (float(v) for v in box_xyxy_px)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _frame(painter: ImageDraw.ImageDraw, mark: Mark, line: int) -> None:
    """The box, with a thin dark edge that keeps it visible on its own colour."""
    x0, y0, x1, y1 = mark.box
    painter.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(20, 20, 20), width=line + 2)
    painter.rectangle(mark.box, outline=mark.colour, width=line)


def paint_names(canvas: Image.Image, marks: Sequence[Mark], line: int) -> None:
    """Each name on a patch of its mark's colour, where it covers earlier names least."""
    font = _font(max(14, round(max(canvas.size) / 38)))
    taken: list[Rectangle] = []
    for mark in marks:
        taken.append(_paint_name(canvas, mark, font, line, taken=taken))


def _paint_name(
    canvas: Image.Image, mark: Mark, font: ImageFont.FreeTypeFont, line: int, *, taken: Sequence[Rectangle]
) -> Rectangle:
    """Paint one name beside its box; where it stands."""
    painter, size_wh = ImageDraw.Draw(canvas), canvas.size
    text = _shorten(mark.text, font, 0.9 * size_wh[0])
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 2 * line + 2, bottom - top + 2 * line + 2
    x0, y0, x1, y1 = mark.box
    # above, inside, below, right above, right inside
    corners = [(x0, y0 - height), (x0, y0), (x0, y1), (x1 - width, y0 - height), (x1 - width, y1 - height)]
    places = []
    for x, y in corners:
        x, y = min(max(x, 0.0), max(size_wh[0] - width, 0)), min(max(y, 0.0), max(size_wh[1] - height, 0))
        places.append((x, y, x + width, y + height))
    place = min(places, key=lambda candidate: sum(_overlap(candidate, other) for other in taken))  # the first of equals
    painter.rectangle(place, fill=mark.colour)
    dark = 0.299 * mark.colour[0] + 0.587 * mark.colour[1] + 0.114 * mark.colour[2] < 140  # luma, ITU-R BT.601
    origin = (place[0] + line + 1 - left, place[1] + line + 1 - top)
    painter.text(origin, text, font=font, fill="white" if dark else "black")
    return place


def _shorten(text: str, font: ImageFont.FreeTypeFont, max_px: float) -> str:
    """The text on one line, its middle cut out where it is wider than the picture."""
    text = " ".join(text.split())
    keep = len(text)
    shown = text
    while keep > 2 and font.getlength(shown) > max_px:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


def _overlap(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


OPACITY = 0.5


def draw_masks(
    image: UInt8[np.ndarray, "h w 3"], masks: Sequence[Bool[np.ndarray, "h w"]], texts: Sequence[str]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture with each mask tinted, outlined and named, in its own colour.

    A phrase whose mask is empty is written along the bottom, with "not here".

    Returns:
        A new picture; one whose long side is under 480 pixels comes back enlarged by a whole factor.
    """
    canvas, _ = enlarged(image)
    size_wh, pixels = canvas.size, np.array(canvas)
    line = max(2, round(max(size_wh) / 240))
    marks = []
    for position, (mask, text) in enumerate(zip(masks, texts, strict=True)):
        colour = class_colour(position)
        large = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
        inside = large.astype(bool)
        pixels[inside] = np.round(pixels[inside] * (1 - OPACITY) + np.array(colour) * OPACITY).astype(np.uint8)
        # RETR_CCOMP: holes have outlines too
        contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, contours, -1, colour, line)
        marks.append(Mark(_box(inside, size_wh), text if inside.any() else f"{text}: not here", colour))
    canvas = Image.fromarray(pixels)
    paint_names(canvas, marks, line)
    return np.asarray(canvas)


def _box(mask: Bool[np.ndarray, "h w"], size_wh: tuple[int, int]) -> Rectangle:
    """The tight box of a mask; the lower left corner of the picture where it is empty."""
    if not mask.any():
        return 0.0, float(size_wh[1]), float(size_wh[0]), float(size_wh[1])
    left, top, right, bottom = box_of_mask(mask)
    return float(left), float(top), float(right), float(bottom)
