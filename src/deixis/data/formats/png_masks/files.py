"""Which files are masks, and which picture each belongs to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from deixis.data.formats.annotation_files import ImageIndex, same_split
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.png_masks.pixels import mask_values
from deixis.data.formats.shared.split_folders import SPLIT_FOLDERS
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.errors import DataError, NoSuchSplitError

_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "annotations",
    "segmentationobject",
    "segmentationclass",
    "instances",
    "segmentations",
)
_SUFFIXES = {".png", ".tif", ".tiff", ".bmp"}
_ENDINGS = ("_mask", "_masks", "_seg", "_label", "_gt", "_instance", "_instances", "-mask")
_MAX_VALUES = 300


def find_png_masks(path: Path) -> list[Path]:
    """The masks of a folder that has a folder of them beside its pictures, sorted by name; or of that folder itself.

    A folder of masks may have folders train, val and test instead.
    """
    if not path.is_dir():
        return []
    inside = sorted((child for child in path.iterdir() if child.is_dir() and _holds_masks(child)), key=_rank)
    for place in [*inside, *[path] * (_holds_masks(path) or _is_split_of_masks(path))]:
        found = _masks_in(place) or [file for split in SPLIT_FOLDERS for file in _masks_in(place / split)]
        if found:
            return found
    return []


def _holds_masks(folder: Path) -> bool:
    """Whether a folder is called as folders of masks are; `train_masks` too."""
    return folder.name.lower() in _FOLDERS or folder.name.lower().endswith(("_masks", "_mask", "-masks"))


def _is_split_of_masks(folder: Path) -> bool:
    """Whether a folder is `masks/train` or the like; the name of a data set may end in `-masks` too."""
    return folder.name.lower() in SPLIT_FOLDERS and _holds_masks(folder.parent)


def _rank(folder: Path) -> tuple[int, str]:
    name = folder.name.lower()
    return (_FOLDERS.index(name) if name in _FOLDERS else len(_FOLDERS)), name


def _masks_in(place: Path) -> list[Path]:
    found = sorted(place.iterdir()) if place.is_dir() else []
    files = [file for file in found if file.suffix.lower() in _SUFFIXES and not is_left_by_macos(file)]
    if not files or any(place.glob("*.txt")) or any(place.glob("*.json")) or not _is_mask(files[0]):
        return []
    index = pictures_of(place, None)[0]
    return files if any(picture_of(file, index) for file in files[:5]) else []


def _is_mask(file: Path) -> bool:
    """Whether a PNG has few values, as masks have, and photographs have not."""
    try:
        pixels = mask_values(file)
    except (DataError, OSError, SyntaxError, ValueError):
        return False
    some = pixels[::4, ::4]
    return len(np.unique(some)) <= min(_MAX_VALUES, max(2, some.size // 4))


def pictures_of(masks: Path, images: Path | None) -> tuple[ImageIndex, list[Path]]:
    """The pictures that may belong to a folder of masks, and the folders they are looked for in."""
    home, split = (masks.parent.parent, masks.name) if _is_split_of_masks(masks) else (masks.parent, "")
    places = [images] if images is not None else [folder / split for folder in likely_folders(home)]
    places = [
        place
        for place in places
        if place.is_dir() and place != masks and not _holds_masks(place) and not _is_split_of_masks(place)
    ]
    return ImageIndex(places), places


def picture_of(mask: Path, index: ImageIndex) -> Path | None:
    """The picture of a mask: of its name, without an ending such as `_mask`, or without the number of an object."""
    stems = [mask.stem, *(mask.stem.removesuffix(ending) for ending in _ENDINGS if mask.stem.endswith(ending))]
    stems.append(re.sub(r"[_-]\d+$", "", mask.stem))
    found = (index.by_stem.get(stem.lower()) for stem in stems)
    return next((image for image in found if image is not None and image != mask), None)


def of_split(files: list[Path], split: str | None, folder: Path) -> list[Path]:
    """The masks of one split, or all where there are none."""
    if not files:
        raise DataError(f"{folder}: no folder of PNG masks ({', '.join(_FOLDERS[:3])}, …) beside pictures in it")
    sets = {same_split(file.parent.name) for file in files if _holds_masks(file.parent.parent)}
    if split is None and len(sets) < 2:
        return files
    known = ", ".join(sorted(sets)) or "no folders of splits"
    if split is None:
        raise DataError(f"{folder}: has the splits {known}; name one, as in {folder}#{min(sets)}")
    if same_split(split) not in sets:
        raise NoSuchSplitError(f"{folder}: has no split {split!r}, only {known}")
    return [file for file in files if same_split(file.parent.name) == same_split(split)]
