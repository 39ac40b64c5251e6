"""Pixels of masks that are stored as pictures: small PNGs at a place of their image, and colours as numbers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

MAX_MASK_PIXELS = 1 << 27


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
