"""The pictures of a review as the page shows them: upright, as JPEG, whole or the surroundings of an object."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats.review.read import mask_of
from deixis.data.pixels.images import load
from deixis.geometry.masks import outlines
from deixis.records import Instances, Sample, Vocabulary
from deixis.review.store import CORNERS, Row

_MARGIN = 0.25  # around an object, as a share of its longer side
_QUALITY = 90


class Pictures:
    """Decoded pictures; the latest few are kept.

    Args:
        folder: that the files' names begin in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = lru_cache(maxsize=4)(self._decoded)

    def pixels(self, image: Row) -> UInt8[np.ndarray, "h w 3"]:
        """Of an image, in the size that it was annotated in.

        Raises:
            DataError: it cannot be read.
        """
        return self._kept(image["file"], image["height"], image["width"])

    def _decoded(self, file: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        sample = Sample(self.folder / file, (height, width), Instances.none(), Vocabulary(("object",)), source=file)
        pixels = load(sample).image
        assert isinstance(pixels, np.ndarray)
        return pixels

    def jpeg(self, image: Row) -> bytes:
        """The whole picture."""
        return _jpeg(self.pixels(image))

    def crop(self, image: Row, found: Row, side_px: int = 192) -> bytes:
        """An object with a margin, at most `side_px` high and wide; a small one is enlarged up to four times."""
        x1, y1, x2, y2 = (found[name] for name in CORNERS)
        margin = _MARGIN * max(x2 - x1, y2 - y1) + 2
        left, top = int(max(x1 - margin, 0)), int(max(y1 - margin, 0))
        right, bottom = int(min(x2 + margin, image["width"])) + 1, int(min(y2 + margin, image["height"])) + 1
        part = Image.fromarray(self.pixels(image)[top:bottom, left:right])
        scale = min(side_px / max(part.size), 4.0)
        return _jpeg(np.asarray(part.resize([max(round(side * scale), 1) for side in part.size])))


def outline_of(found: Row, image: Row) -> list[list[Any]]:
    """The outlines of an object's mask, as lists of points; none of a box."""
    if found["mask"] is None:
        return []
    rle = mask_of(found["mask"], (image["height"], image["width"]))
    assert rle is not None
    return [points.tolist() for points in outlines(coco_mask.decode(rle))]


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
