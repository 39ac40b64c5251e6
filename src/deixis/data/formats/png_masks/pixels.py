"""The values of masks, and the objects that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.mask_pixels import MAX_MASK_PIXELS, colour_values
from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.geometry.masks import box_of_mask
from deixis.geometry.rle import bitmap_rle

ONE_CLASS = "object"
_Values = Int[np.ndarray, "h w"]


@dataclass(frozen=True)
class Key:
    """What the values of some masks mean.

    Attributes:
        names: the class of each value; None where nothing names them.
        coloured: values are colours, of palettes and greys too.
        values: those that occur, without background.
        void: those that are nothing.
        kinds: the folder of masks that give the classes of objects, where there is one.
    """

    names: dict[int, str] | None
    coloured: bool
    values: list[int]
    void: set[int]
    kinds: Path | None


def mask_values(file: Path, coloured: bool = False) -> _Values:
    """A mask's values: indices of palette and grey PNGs, colours as red + 256 green + 65536 blue.

    Args:
        coloured: of palettes and greys too the colours.
    """
    require_regular(file)
    with Image.open(file) as image:
        if image.width * image.height > MAX_MASK_PIXELS:
            raise DataError(f"{file}: has {image.size} pixels (width, height), more than a mask can have")
        if not coloured and image.mode in ("P", "L", "I", "I;16", "1", "LA"):
            return np.asarray(image if image.mode != "LA" else image.getchannel(0)).astype(np.int32)
        values = colour_values(image)
    red = values & 255
    grey = not coloured and bool((values == red * 65793).all())  # saved as RGB: 1 + 256 + 65536
    return red if grey else values


def _regions(
    drawn: _Values, classes: _Values | None, void: set[int], apart: bool
) -> list[tuple[Bool[np.ndarray, "h w"], int]]:
    """The objects of a mask, each with the value of its class."""
    found = []
    for value in np.unique(drawn).tolist():
        mask = drawn == value
        if value == 0 or value in void:
            continue
        if classes is not None:
            kind = int(np.bincount(classes[mask].astype(np.int64)).argmax())  # that of most of its pixels
            found += [(mask, kind)] if kind and kind not in void else []
        elif apart:
            count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            found += [(parts == part, value) for part in range(1, count)]
        else:
            found.append((mask, value))
    return found


def _object(mask: np.ndarray, value: int, names: Mapping[int, str] | None, file: Path, masks: bool) -> AnnotatedObject:
    if names is not None and value not in names:
        known: Sequence[int] = list(names)[:10]
        raise DataError(f"{file}: value {value} is not among those of the {len(names)} classes ({known}); add its name")
    x1, y1, x2, y2 = box_of_mask(mask)
    name = ONE_CLASS if names is None else names[value]
    return AnnotatedObject(name, (x1, y1, x2, y2), float(mask.sum()), bitmap_rle(mask) if masks else None)


def mask_objects(file: Path, size_hw: tuple[int, int], key: Key, single: bool, masks: bool) -> list[AnnotatedObject]:
    """The objects of a mask; the whole of it is one where `single`."""
    drawn = mask_values(file, key.coloured and key.kinds is None)
    if drawn.shape != size_hw:
        raise DataError(f"{file}: has {drawn.shape} (height, width), its image {size_hw}; restore it")
    classes = mask_values(key.kinds / file.name, key.coloured) if key.kinds else None
    apart = not single and (key.names is not None or len(key.values) == 1)
    return [_object(mask, value, key.names, file, masks) for mask, value in _regions(drawn, classes, key.void, apart)]
