"""Masks as PNG files, one per picture: which values are classes and which are objects is found and reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import ImageIndex, read_text, report_missing, require_no_missing, same_split
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, likely_folders, size_of
from deixis.data.formats.shared.class_lists import class_names
from deixis.data.formats.shared.mask_pixels import MAX_MASK_PIXELS, colour_values
from deixis.data.formats.shared.split_folders import SPLIT_FOLDERS
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError, NoSuchSplitError
from deixis.geometry.masks import box_of_mask
from deixis.geometry.rle import bitmap_rle
from deixis.records import SampleList
from deixis.text import clean_name

_MASKS = (
    "masks",
    "mask",
    "labels",
    "annotations",
    "SegmentationObject",
    "SegmentationClass",
    "instances",
    "segmentations",
)
_CLASSES_BESIDE = {"SegmentationObject": "SegmentationClass"}
_ENDINGS = ("_mask", "_masks", "_seg", "_label", "_gt", "_instance", "_instances", "-mask")
_BACKGROUND = {"background", "_background_", "__background__", "bg", "void", "unlabeled"}
_VOID = 255
_MOST_VALUES = 300
_ONE_CLASS = "object"
_COLOUR_LINE = re.compile(r"^(.+?):(\d+),(\d+),(\d+):")
_Values = Int[np.ndarray, "h w"]


def find_png_masks(path: Path) -> list[Path]:
    """The masks of a folder that has a folder of them beside its pictures, sorted by name; or of that folder itself.

    A folder of masks may have folders train, val and test instead.
    """
    own = [path] * (path.name in _MASKS or path.parent.name in _MASKS)
    for place in [path / name for name in _MASKS] + own if path.is_dir() else ():
        found = _masks_in(place) or [file for split in SPLIT_FOLDERS for file in _masks_in(place / split)]
        if found:
            return found
    return []


def _masks_in(place: Path) -> list[Path]:
    files = [file for file in sorted(place.glob("*.png")) if not is_left_by_macos(file)] if place.is_dir() else []
    if not files or any(place.glob("*.txt")) or any(place.glob("*.json")) or not _is_mask(files[0]):
        return []
    index = _pictures_of(place, None)[0]
    return files if any(_picture_of(file, index) for file in files[:5]) else []


def _is_mask(file: Path) -> bool:
    """Whether a PNG has few values, as masks have, and photographs have not."""
    try:
        values = _values(file)
    except (DataError, OSError, SyntaxError, ValueError):
        return False
    some = values[::4, ::4]
    return len(np.unique(some)) <= min(_MOST_VALUES, max(2, some.size // 4))


def _pictures_of(masks: Path, images: Path | None) -> tuple[ImageIndex, list[Path]]:
    """The pictures that may belong to a folder of masks, and the folders they are looked for in."""
    home, split = (masks.parent.parent, masks.name) if masks.parent.name in _MASKS else (masks.parent, "")
    places = [images] if images is not None else [folder / split for folder in likely_folders(home)]
    places = [
        place
        for place in places
        if place.is_dir() and place != masks and not {place.name, place.parent.name} & {*_MASKS}
    ]
    return ImageIndex(places), places


def _picture_of(mask: Path, index: ImageIndex) -> Path | None:
    """The picture of a mask: of its name, without an ending such as `_mask`, or without the number of an object."""
    stems = [mask.stem, *(mask.stem.removesuffix(ending) for ending in _ENDINGS if mask.stem.endswith(ending))]
    stems.append(re.sub(r"[_-]\d+$", "", mask.stem))
    found = (index.by_stem.get(stem.lower()) for stem in stems)
    return next((image for image in found if image is not None and image != mask), None)


@reads("masks as PNG files")
def read_png_masks(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """A folder with pictures and, in `masks` (or `labels`, `SegmentationObject`, …), PNG masks of the same names.

    0 and black are background. With a list of classes beside the masks (`classes.txt`, CVAT's `labelmap.txt` of
    colours, …) values are classes and each connected region is an object, or with `SegmentationObject` beside
    `SegmentationClass` each of the former's values. Without a list a single value is drawn regions, several values
    are objects, and all are of the class `object`, which a warning reports. 255 beside other values is void. Where a
    picture has several masks, as `a_0.png` and `a_1.png`, each is one object.

    Args:
        path: the folder, its folder of masks, or a split of that.
        images: the folder of images, where they are elsewhere.
        masks: keep masks; without them their boxes.
        split: train, val or test, where the folders have such folders.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: no masks, one of another size than its picture, or a value that the list of classes lacks.
    """
    folder = Path(path)
    files = _of_split(find_png_masks(folder), split, folder)
    place = files[0].parent
    index, searched = _pictures_of(place, images)
    found = [_picture_of(file, index) for file in files]
    missing = [file.name for file, image in zip(files, found, strict=True) if image is None]
    if findings is not None:
        report_missing(findings, [(name, place.name) for name in missing])
    else:
        require_no_missing(str(place), missing, len(files), searched)
    by_image: dict[Path, list[Path]] = {}
    for file, image in zip(files, found, strict=True):
        if image is not None:
            by_image.setdefault(image, []).append(file)
    key = _key_of(place, [file for own in by_image.values() for file in own])
    pictures = []
    for image, own in by_image.items():
        with collecting(findings, "mask_malformed", own[0], "", "image removed"):
            size_hw = size_of(image, None, findings)
            objects = [thing for file in own for thing in _objects(file, size_hw, key, len(own) > 1, masks)]
            pictures.append(Picture(image, size_hw, tuple(objects), own[0].name))
    if key.names is None:
        shown = ", ".join(map(str, key.values[:5]))
        said = f"each of the values {shown}, … is an object" if len(key.values) > 1 else "every region is an object"
        warnings.warn(
            f"{place}: has no names of classes; {said} of the class {_ONE_CLASS!r}; if values are classes, name them "
            "in a file classes.txt beside the masks' folder, one name per line from value 1 on",
            stacklevel=3,
        )
    order = [_ONE_CLASS] if key.names is None else list(dict.fromkeys(key.names.values()))
    return assemble(folder, pictures, order, place.resolve().parent.name, findings)


@dataclass(frozen=True)
class _Key:
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


def _key_of(place: Path, files: Sequence[Path]) -> _Key:
    names, coloured = _names(place)
    beside = place.parent / _CLASSES_BESIDE.get(place.name, "")
    kinds = beside if place.name in _CLASSES_BESIDE and beside.is_dir() else None
    found: set[int] = set()
    for file in files:
        found.update(np.unique(_values(kinds / file.name if kinds else file, coloured)).tolist())
    values = sorted(found - {0})
    void = {_VOID} if len(values) > 1 and _VOID in values and not (names and _VOID in names) else set()
    return _Key(names, coloured, values, void, kinds)


def _of_split(files: list[Path], split: str | None, folder: Path) -> list[Path]:
    """The masks of one split, or all where there are none."""
    if not files:
        raise DataError(f"{folder}: no folder of PNG masks ({', '.join(_MASKS[:3])}, …) beside pictures in it")
    sets = {same_split(file.parent.name) for file in files if file.parent.parent.name in _MASKS}
    if split is None and len(sets) < 2:
        return files
    known = ", ".join(sorted(sets)) or "no folders of splits"
    if split is None:
        raise DataError(f"{folder}: has the splits {known}; name one, as in {folder}#{min(sets)}")
    if same_split(split) not in sets:
        raise NoSuchSplitError(f"{folder}: has no split {split!r}, only {known}")
    return [file for file in files if same_split(file.parent.name) == same_split(split)]


def _objects(file: Path, size_hw: tuple[int, int], key: _Key, single: bool, masks: bool) -> list[AnnotatedObject]:
    """The objects of a mask; the whole of it is one where `single`."""
    drawn = _values(file, key.coloured and key.kinds is None)
    if drawn.shape != size_hw:
        raise DataError(f"{file}: has {drawn.shape} (height, width), its image {size_hw}; restore it")
    classes = _values(key.kinds / file.name, key.coloured) if key.kinds else None
    apart = not single and (key.names is not None or len(key.values) == 1)
    return [_object(mask, value, key.names, file, masks) for mask, value in _regions(drawn, classes, key.void, apart)]


def _names(place: Path) -> tuple[dict[int, str] | None, bool]:
    """The class of each value, None where no list names it; and whether the list names colours, as CVAT's does."""
    homes = [place.parent, place, place.parent.parent]
    for home in homes:
        colours = home / "labelmap.txt"
        if colours.is_file():
            rows = [found for line in read_text(colours).splitlines() if (found := _COLOUR_LINE.match(line))]
            known = {_colour(*map(int, row.groups()[1:])): clean_name(row[1]) for row in rows if row[1][0] != "#"}
            return {value: name for value, name in known.items() if value and name.lower() not in _BACKGROUND}, True
    listed = class_names(homes, first=0)
    if listed is None:
        return None, False
    names, file = listed
    if names and file.suffix == ".txt" and names.get(0, "").lower() not in _BACKGROUND:
        names = {value + 1: name for value, name in names.items()}
    return {value: name for value, name in names.items() if value and name.lower() not in _BACKGROUND}, False


def _colour(red: int, green: int, blue: int) -> int:
    return red + 256 * green + 65536 * blue


def _values(file: Path, coloured: bool = False) -> _Values:
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
            kind = int(np.bincount(classes[mask].astype(np.int64)).argmax())
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
    name = _ONE_CLASS if names is None else names[value]
    return AnnotatedObject(name, (x1, y1, x2, y2), float(mask.sum()), bitmap_rle(mask) if masks else None)
