"""Masks as PNG files whose pixels are object numbers, 0 for none: palette images, or grey ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.video_records import Masklet

VOID = 255  # in palette images pixels that nobody judged; in binary ones the object


def read_label_map(path: Path, size_hw: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The object numbers of a PNG; its size is compared with that of the frames before it is decoded.

    Raises:
        DataError: it cannot be read, is of another size, or has colours in place of numbers.
    """
    require_regular(path)
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != size_hw:
                raise DataError(f"{path}: is {(image.height, image.width)}, the frames are {size_hw} (height, width)")
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path}: has mode {image.mode}, expected a palette image whose pixels are object numbers; "
                    "take the original annotation, or save it with a palette"
                )
            return np.array(image, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds on damaged files
        raise DataError(f"{path}: cannot be read as an image ({error}); get the file again") from error


def masklets_of_maps(files: Sequence[Path], size_hw: tuple[int, int]) -> tuple[Masklet, ...]:
    """One masklet per object number, ascending, from the maps of all labelled frames. Files with 0 and 255 alone show
    one object, number 1.

    Raises:
        DataError: a file that is damaged, or of another size than the frames.
    """
    seen: list[dict[int, Rle]] = []
    for file in files:
        numbers = read_label_map(file, size_hw)
        seen.append({int(n): bitmap_rle(numbers == n) for n in np.unique(numbers) if n})
    found = sorted({number for masks in seen for number in masks})
    if found == [VOID]:
        return (Masklet(tuple(masks.get(VOID) for masks in seen), 1),)
    return tuple(Masklet(tuple(masks.get(n) for masks in seen), n) for n in found if n != VOID)
