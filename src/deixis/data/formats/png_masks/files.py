"""Which files are masks, which picture each belongs to, and the objects that their values are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from deixis.data.formats.annotation_files import ImageIndex, same_split
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.shared.annotated_objects import MAX_MASK_PIXELS, AnnotatedObject, colour_values
from deixis.data.formats.shared.split_folders import SPLIT_FOLDERS
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import require_regular
from deixis.errors import DataError, NoSuchSplitError
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
            # Part 0 is the background.
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
    # YOLO keeps its lines, and other tools their JSON, in folders of these names too.
    if not files or any(place.glob("*.txt")) or any(place.glob("*.json")) or not _is_mask(files[0]):
        return []
    index = pictures_of(place, None)[0]
    return files if any(_has_picture(file, index) for file in files[:5]) else []


def _is_mask(file: Path) -> bool:
    """Whether a PNG has few values, as masks have, and photographs have not."""
    try:
        pixels = mask_values(file)
    except (DataError, OSError, SyntaxError, ValueError):
        return False
    some = pixels[::4, ::4]
    # A small photograph has few values as well, but not only one for every four pixels.
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


def _has_picture(mask: Path, index: ImageIndex) -> bool:
    try:
        return picture_of(mask, index) is not None
    except DataError:  # it has several, which the reader reports
        return True


def picture_of(mask: Path, index: ImageIndex) -> Path | None:
    """The picture of a mask: of its name, without an ending such as `_mask`, or without the number of an object.

    Raises:
        DataError: it may be any of several.
    """
    stems = [mask.stem, *(mask.stem.removesuffix(ending) for ending in _ENDINGS if mask.stem.endswith(ending))]
    stems.append(re.sub(r"[_-]\d+$", "", mask.stem))
    found = (index.find("", stem) for stem in stems)
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
