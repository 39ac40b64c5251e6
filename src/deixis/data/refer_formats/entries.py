"""What readers of expressions share: faults that are counted, masks checked, images found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from deixis.data.formats.annotation_files import require_no_missing
from deixis.data.formats.coco.values import mask_rle
from deixis.data.formats.find_images import resolve_image
from deixis.data.reading import require_regular, shown
from deixis.errors import DataError
from deixis.records import Rle

_FAULTS_NAMED = 3
_PROBED_IMAGES = 20


def settle(source: str, faults: Sequence[str], collected: list[str] | None) -> None:
    """Hand faults over to a list, if there is one; without it they are an error.

    Raises:
        DataError: naming the first faults and how many there are.
    """
    if collected is not None:
        collected += [f"{source}: {fault}" for fault in faults]
    elif faults:
        more = f"; and {len(faults) - _FAULTS_NAMED} more faults" if len(faults) > _FAULTS_NAMED else ""
        raise DataError(f"{source}: {'; '.join(faults[:_FAULTS_NAMED])}{more}; correct or remove these entries")


def opens_with(file: Path, bracket: str) -> bool:
    """Whether a JSON file begins as a list `[` or as an object `{`."""
    try:
        require_regular(file)
        with file.open("rb") as content:
            return content.read(4096).decode("utf-8-sig", errors="ignore").lstrip().startswith(bracket)
    except (OSError, DataError):
        return False


def object_mask(segmentation: Any, size_hw: tuple[int, int]) -> Rle:
    """One object's polygons or RLE as RLE; polygons that overlap are one area, not counted twice.

    Raises:
        ValueError: no segmentation, one of an unknown form or of another size, or one that covers no pixel.
    """
    if isinstance(segmentation, list) and segmentation and not isinstance(segmentation[0], list):
        segmentation = [segmentation]  # a single polygon without its outer list
    mask = mask_rle(segmentation, size_hw)
    if mask is None:
        raise ValueError("has no polygon of three points or more, and no RLE")
    if not coco_mask.area(mask):
        raise ValueError("covers no pixel")
    return mask


def sentences(value: Any) -> tuple[str, ...]:
    """One sentence or a list of them, none blank.

    Raises:
        ValueError: anything else.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"text must be a sentence or a list of them, got {shown(value)}")
    if not all(text.strip() for text in texts):
        raise ValueError("a sentence is blank")
    return tuple(text.strip() for text in texts)


def find_images(
    source: str, names: Sequence[str], folders: Sequence[Path], some_missing: bool = False
) -> list[Path | None]:
    """The image files of some names, all in one of the folders: the one that has most of the first names.

    Args:
        some_missing: give None for an image that is not there, as long as any is.

    Raises:
        DataError: images are missing.
    """
    probe = names[:_PROBED_IMAGES]
    folder = max(folders, key=lambda place: sum(resolve_image(place, name) is not None for name in probe))
    found = [resolve_image(folder, name) for name in names]
    missing = [name for name, image in zip(names, found, strict=True) if image is None]
    if not some_missing or len(missing) == len(names):
        require_no_missing(source, missing, len(names), folders if len(missing) == len(names) else [folder])
    return found


def warn_left_out(source: str, what: str, left_out: Sequence[str]) -> None:
    """One warning for everything left out, naming the first."""
    if left_out:
        warnings.warn(f"{source}: left out {len(left_out)} {what}, the first is {left_out[0]}", stacklevel=3)
