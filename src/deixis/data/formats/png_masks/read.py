"""Masks as PNG files, one per picture: which values are classes and which are objects is found and reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import ImageIndex, read_text, report_missing, require_no_missing
from deixis.data.formats.shared.assemble import Picture, assemble, likely_folders, size_of
from deixis.data.formats.shared.class_lists import class_names
from deixis.data.formats.shared.drawn import MAX_MASK_PIXELS, Drawn, colour_values
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError
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
    """The masks of a folder that has a folder of them beside its pictures, sorted by name; or of that folder itself."""
    if not path.is_dir():
        return []
    for place in [path / name for name in _MASKS] + [path] * (path.name in _MASKS):
        files = [file for file in sorted(place.glob("*.png")) if not is_left_by_macos(file)] if place.is_dir() else []
        if files and not any(place.glob("*.txt")) and not any(place.glob("*.json")) and _is_mask(files[0]):
            index = _pictures_of(place, None)[0]
            if any(_picture_of(file, index) for file in files[:5]):
                return files
    return []


def _is_mask(file: Path) -> bool:
    """Whether a PNG has few values, as masks have, and photographs have not."""
    try:
        values = _values(file)
    except (DataError, OSError, SyntaxError, ValueError):
        return False
    some = values[::4, ::4]
    return len(np.unique(some)) <= min(_MOST_VALUES, max(2, some.size // 4))


def _pictures_of(masks: Path, images: Path | None) -> tuple[ImageIndex, list[Path]]:
    home = masks.parent
    places = [images] if images is not None else [folder for folder in likely_folders(home) if folder != masks]
    places = [place for place in places if place.name not in _MASKS]
    return ImageIndex(places), places


def _picture_of(mask: Path, index: ImageIndex) -> Path | None:
    stems = [mask.stem, *(mask.stem.removesuffix(ending) for ending in _ENDINGS if mask.stem.endswith(ending))]
    found = (index.by_stem.get(stem.lower()) for stem in stems)
    return next((image for image in found if image is not None and image != mask), None)


@reads("masks as PNG files")
def read_png_masks(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """A folder with pictures and, in `masks` (or `labels`, `SegmentationObject`, …), PNG masks of the same names.

    0 and black are background. With a list of classes beside the masks (`classes.txt`, CVAT's `labelmap.txt` of
    colours, …) values are classes and each connected region is an object, or with `SegmentationObject` beside
    `SegmentationClass` each of the former's values. Without a list a single value is drawn regions, several values
    are objects, and all are of the class `object`, which a warning reports. 255 beside other values is void.

    Args:
        path: the folder, or its folder of masks.
        images: the folder of images, where they are elsewhere.
        masks: keep masks; without them their boxes.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: no masks, one of another size than its picture, or a value that the list of classes lacks.
    """
    folder = Path(path)
    files = find_png_masks(folder)
    if not files:
        raise DataError(f"{folder}: no folder of PNG masks ({', '.join(_MASKS[:3])}, …) beside pictures in it")
    place = files[0].parent
    index, searched = _pictures_of(place, images)
    found = [_picture_of(file, index) for file in files]
    missing = [file.name for file, image in zip(files, found, strict=True) if image is None]
    if findings is not None:
        report_missing(findings, [(name, place.name) for name in missing])
    else:
        require_no_missing(str(place), missing, len(files), searched)
    pairs = [(file, image) for file, image in zip(files, found, strict=True) if image is not None]
    names, coloured = _names(place)
    beside = place.parent / _CLASSES_BESIDE.get(place.name, "")
    kinds = beside if place.name in _CLASSES_BESIDE and beside.is_dir() else None
    values = sorted(
        {int(v) for file, _ in pairs for v in np.unique(_values(kinds / file.name if kinds else file, coloured))} - {0}
    )
    void = {_VOID} if len(values) > 1 and _VOID in values and not (names and _VOID in names) else set()
    pictures = []
    for file, image in pairs:
        with collecting(findings, "mask_malformed", file, "", "image removed"):
            size_hw = size_of(image, None, findings)
            drawn = _values(file, coloured and kinds is None)
            if drawn.shape != size_hw:
                raise DataError(f"{file}: has {drawn.shape} (height, width), its image {size_hw}; restore it")
            classes = _values(kinds / file.name, coloured) if kinds else None
            regions = _regions(drawn, classes, void, apart=names is not None or len(values) == 1)
            objects = [_object(mask, value, names, file, masks) for mask, value in regions]
            pictures.append(Picture(image, size_hw, tuple(objects), file.name))
    if names is None:
        shown = ", ".join(map(str, values[:5]))
        said = "every region is an object" if len(values) == 1 else f"each of the values {shown}, … is an object"
        warnings.warn(
            f"{place}: has no names of classes; {said} of the class {_ONE_CLASS!r}; if values are classes, name them "
            "in a file classes.txt beside the masks' folder, one name per line from value 1 on",
            stacklevel=3,
        )
    order = None if names is None else list(dict.fromkeys(names.values()))
    return assemble(folder, pictures, order or [_ONE_CLASS], place.resolve().parent.name, findings)


def _names(place: Path) -> tuple[dict[int, str] | None, bool]:
    """The class of each value, None where no list names it; and whether the list names colours, as CVAT's does."""
    for home in (place.parent, place):
        colours = home / "labelmap.txt"
        if colours.is_file():
            rows = [found for line in read_text(colours).splitlines() if (found := _COLOUR_LINE.match(line))]
            known = {_colour(*map(int, row.groups()[1:])): clean_name(row[1]) for row in rows if row[1][0] != "#"}
            return {value: name for value, name in known.items() if value and name.lower() not in _BACKGROUND}, True
    listed = class_names([place.parent, place], first=0)
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


def _object(mask: np.ndarray, value: int, names: Mapping[int, str] | None, file: Path, masks: bool) -> Drawn:
    if names is not None and value not in names:
        known: Sequence[int] = list(names)[:10]
        raise DataError(f"{file}: value {value} is not among those of the {len(names)} classes ({known}); add its name")
    x1, y1, x2, y2 = box_of_mask(mask)
    name = _ONE_CLASS if names is None else names[value]
    return Drawn(name, (x1, y1, x2, y2), float(mask.sum()), bitmap_rle(mask) if masks else None)
