"""Masks with their phrases on pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from deixis.geometry.masks import box_of_mask
from deixis.results.draw import Mark, Rectangle, class_colour, enlarged, paint_names

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
