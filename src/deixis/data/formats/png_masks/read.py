"""Masks as PNG files, one per picture: which values are classes and which are objects is found and reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import read_text, report_missing, require_no_missing
from deixis.data.formats.png_masks.files import (
    ONE_CLASS,
    Key,
    find_png_masks,
    mask_objects,
    mask_values,
    of_split,
    picture_of,
    pictures_of,
)
from deixis.data.formats.shared.assemble import Picture, assemble, size_of
from deixis.data.formats.shared.class_lists import class_names
from deixis.data.reading import reads
from deixis.records import SampleList
from deixis.text import clean_name

_CLASSES_BESIDE = {"SegmentationObject": "SegmentationClass"}
_BACKGROUND = {"background", "_background_", "__background__", "bg", "void", "unlabeled"}
_VOID = 255
_COLOUR_LINE = re.compile(r"^(.+?):(\d+),(\d+),(\d+):")


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
        masks: keep masks; without them their boxes.
        split: train, val or test, where the folders have such folders.

    Raises:
        DataError: no masks, one of another size than its picture, or a value that the list of classes lacks.
    """
    folder = Path(path)
    files = of_split(find_png_masks(folder), split, folder)
    place = files[0].parent
    index, searched = pictures_of(place, images)
    by_image: dict[Path, list[Path]] = {}
    missing = []
    for file in files:
        with collecting(findings, "image_misplaced", file.name, place.name, "mask removed"):
            image = picture_of(file, index)
            if image is None:
                missing.append(file.name)
            else:
                by_image.setdefault(image, []).append(file)
    if findings is not None:
        report_missing(findings, [(name, place.name) for name in missing])
    else:
        require_no_missing(str(place), missing, len(files), searched)
    key = _key_of(place, [file for own in by_image.values() for file in own])
    pictures = []
    for image, own in by_image.items():
        with collecting(findings, "mask_malformed", own[0], "", "image removed"):
            size_hw = size_of(image, None, findings)
            objects = [thing for file in own for thing in mask_objects(file, size_hw, key, len(own) > 1, masks)]
            pictures.append(Picture(image, size_hw, tuple(objects), own[0].name))
    if key.names is None:
        shown = ", ".join(map(str, key.values[:5]))
        said = f"each of the values {shown}, … is an object" if len(key.values) > 1 else "every region is an object"
        warnings.warn(
            f"{place}: has no names of classes; {said} of the class {ONE_CLASS!r}; if values are classes, name them "
            "in a file classes.txt beside the masks' folder, one name per line from value 1 on",
            stacklevel=3,
        )
    order = [ONE_CLASS] if key.names is None else list(dict.fromkeys(key.names.values()))
    return assemble(folder, pictures, order, place.resolve().parent.name, findings)


def _key_of(place: Path, files: Sequence[Path]) -> Key:
    names, coloured = _names(place)
    beside = place.parent / _CLASSES_BESIDE.get(place.name, "")
    kinds = beside if place.name in _CLASSES_BESIDE and beside.is_dir() else None
    found: set[int] = set()
    for file in files:
        found.update(np.unique(mask_values(kinds / file.name if kinds else file, coloured)).tolist())
    values = sorted(found - {0})
    # 255 alone is what was drawn, as in masks of 0 and 255; beside other values it is what nobody judged
    void = {_VOID} if len(values) > 1 and _VOID in values and not (names and _VOID in names) else set()
    return Key(names, coloured, values, void, kinds)


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
        # the list begins with the first class, and 0 is background
        names = {value + 1: name for value, name in names.items()}
    return {value: name for value, name in names.items() if value and name.lower() not in _BACKGROUND}, False


def _colour(red: int, green: int, blue: int) -> int:
    return red + 256 * green + 65536 * blue
