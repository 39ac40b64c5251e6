"""labelme: one JSON file per image, with `shapes` (polygon, rectangle, circle, mask) and perhaps the image itself."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import (
    ImageIndex,
    holds_text,
    parse_object,
    read_text,
    report_missing,
    require_no_missing,
)
from deixis.data.formats.coco.values import finite_number, image_size
from deixis.data.formats.labelme.shapes import read_shapes
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.errors import DataError
from deixis.records import SampleList
from deixis.text import clean_name

_FOLDERS = ("", "annotations", "labels", "images")
_IGNORED_LABELS = {"__ignore__", "_background_"}


@dataclass(frozen=True)
class _File:
    path: Path
    image: Path
    embedded: bool
    size_hw: tuple[int, int]
    things: tuple[AnnotatedObject, ...]


@dataclass(frozen=True)
class _ImageData:
    """Reads the image out of a JSON file again when it is asked for; picklable for loading workers."""

    files: tuple[Path | None, ...]

    def __call__(self, index: int) -> bytes | None:
        file = self.files[index]
        return None if file is None else _image_data(parse_object(read_text(file), str(file)), file)


def find_labelme(path: Path) -> list[Path]:
    """The files of a folder, or of its `annotations`, `labels` or `images`, sorted by name; or a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and is_labelme(path) else []
    for name in _FOLDERS:
        files = sorted(file for file in (path / name).glob("*.json") if not is_left_by_macos(file))
        # Other JSON files among them are an error when they are read, and named.
        if files and any(is_labelme(file) for file in files[:3]):
            return files
    return []


def is_labelme(file: Path) -> bool:
    """Whether a JSON file has the keys of labelme's."""
    return holds_text(file, '"shapes"') and (holds_text(file, '"imagePath"') or holds_text(file, '"imageData"'))


@reads("labelme annotations")
def read_labelme(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList | EmbeddedDataset:
    """A labelme file, or a folder of them.

    The image is `imagePath`, beside the JSON or in `images`, or else the JSON's own `imageData`. Polygons, rectangles,
    circles and masks are objects; shapes of one label and one `group_id` are one object; points and lines are none and
    are counted in a warning. A shape with the flag `crowd` is one. Classes are those of `labels.txt`, which labelme
    starts with, or else sorted. Masks are kept for the images whose objects all have one: a rectangle has none.

    Raises:
        DataError: malformed JSON, a shape that is none, a missing image, or an image of another size.
    """
    folder = Path(path)
    paths = find_labelme(folder) if folder.is_dir() else [folder]
    if not paths:
        raise DataError(f"{folder}: no labelme JSON files in it or in its {', '.join(_FOLDERS[1:])}")
    files = _parse_all(paths, images, masks, findings)
    names = _label_list(paths[0].parent) or sorted({thing.label for file in files for thing in file.things})
    if not names:
        raise DataError(
            f"{folder}: none of its {len(files)} files has an object that can be used: nothing to learn from"
        )
    pictures = []
    for file in files:
        unknown = sorted({thing.label for thing in file.things} - {*names})
        with collecting(findings, "category_unknown", file.path, "", "their objects removed"):
            if unknown:
                raise DataError(f"{file.path}: labels {unknown} are not in labels.txt; add them there")
        things = tuple(thing for thing in file.things if thing.label not in unknown)
        pictures.append(Picture(file.image, file.size_hw, things, file.path.name))
    name = (folder if folder.is_dir() else folder.parent).resolve().name
    dataset = assemble(folder, pictures, names, name, findings)
    if not any(file.embedded for file in files):
        return dataset
    inside = tuple(file.path if file.embedded else None for file in files)
    return EmbeddedDataset(dataset.samples, dataset.vocabulary, name, _ImageData(inside))


def _parse_all(paths: Sequence[Path], images: Path | None, masks: bool, findings: Findings | None) -> list[_File]:
    home = paths[0].parent
    places = [images] if images is not None else [home, home / "images", home.parent / "images", home.parent]
    index = ImageIndex(place for place in places if place.is_dir())
    files: list[_File] = []
    missing: list[tuple[str, str]] = []
    skipped: list[str] = []
    for path in paths:
        with collecting(findings, "file_malformed", path, "", "image removed"):
            file = _parse(path, index, masks, skipped, findings is None)
            if isinstance(file, _File):
                files.append(file)
            else:
                missing.append((file, path.name))
    if findings is not None and files:
        report_missing(findings, missing)
    else:
        searched = [place for place in places if place.is_dir()] or places
        require_no_missing(str(home), [name for name, _ in missing], len(paths), searched)
    if skipped:
        warnings.warn(
            f"{home}: left out {len(skipped)} shapes that enclose nothing, the first in {skipped[0]}", stacklevel=3
        )
    return files


def _parse(path: Path, index: ImageIndex, masks: bool, skipped: list[str], check_size: bool) -> _File | str:
    """The content of a file, or the name of its image where that is missing."""
    content = parse_object(read_text(path), str(path))
    if not isinstance(content.get("shapes"), list):
        raise DataError(f"{path}: has no list 'shapes', so it is no labelme file; move it away, or give another folder")
    file_name = content.get("imagePath") or ""
    if not isinstance(file_name, str):
        raise DataError(f"{path}: imagePath must be a file name, got {file_name!r}")
    image = index.find(file_name, path.stem)
    if image is None and not content.get("imageData"):
        return file_name or path.stem
    size_hw = _size(content, path, image, check_size)
    things, ignored = read_shapes(content["shapes"], size_hw, masks, str(path))
    skipped += ignored
    named = image or path.with_name(Path(file_name.replace("\\", "/")).name or f"{path.stem}.jpg")
    return _File(path, named, image is None, size_hw, tuple(things))


def _size(content: dict[str, Any], path: Path, image: Path | None, check: bool) -> tuple[int, int]:
    """The image's size, as the file gives it; checked against the image's own, if asked for."""
    height, width = (finite_number(content.get(key)) for key in ("imageHeight", "imageWidth"))
    if height and width and image is not None and not check:
        return image_size(height, width)
    data = _image_data(content, path) if image is None else None
    sizes = image_sizes_hw(image or f"{path}: imageData", data)
    if not height or not width:
        return sizes[0]
    if (int(height), int(width)) not in (sizes if image is not None else sizes[:1]):
        named = "imageData" if image is None else image.name
        raise DataError(
            f"{path}: states {int(width)}x{int(height)} pixels (width x height) but {named} has "
            f"{sizes[0][1]}x{sizes[0][0]}; correct the file or restore the image it was made on"
        )
    return int(height), int(width)


def _image_data(content: dict[str, Any], path: Path) -> bytes:
    try:
        return base64.b64decode(content["imageData"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{path}: imageData is no base64 ({error}); restore the image file beside it") from error


def _label_list(folder: Path) -> list[str]:
    file = folder / "labels.txt"
    if not file.is_file():
        return []
    lines = [clean_name(line) for line in read_text(file).split("\n")]
    return [line for line in lines if line and line not in _IGNORED_LABELS]
