"""ImageFolder's metadata: a row per picture with `file_name` and `objects`, boxes and categories."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import parse_json, parse_object, read_text
from deixis.data.formats.coco.values import finite_number, finite_numbers, whole_number
from deixis.data.formats.parquet.files import CATEGORY_KEYS, open_parquet
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, sized_pictures
from deixis.data.formats.shared.box_values import by_frame
from deixis.data.formats.shared.class_lists import class_names, named
from deixis.data.formats.shared.split_folders import head_of, split_file, split_files
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import SampleList

_SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class _Object:
    """A box as written, its category, a name or a number, and its area where there is one."""

    box: list[float]
    label: int | str
    is_crowd: bool
    area_px: float | None


@dataclass
class _Image:
    """The objects of an image, in one row or several, and the id of the first row where it has one."""

    image_id: int | None
    objects: list[_Object] = field(default_factory=list)


def find_imagefolder(path: Path) -> list[Path]:
    """The metadata of a folder, or of its folders (or `data`'s) train, validation and test; or such a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() in _SUFFIXES and _is_metadata(path) else []
    for home in (path, path / "data"):
        found = split_files(home, "*", _is_metadata) if home.is_dir() else []
        if found:
            return found
    return []


def _is_metadata(file: Path) -> bool:
    """Whether a file has a row with a file name and objects; of parquet, only `metadata.parquet`, without pictures."""
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES or is_left_by_macos(file):
        return False
    if suffix == ".csv":
        columns = set(next(csv.reader([head_of(file).split("\n", 1)[0]]), []))
        return {"file_name", "objects"} <= columns
    if suffix == ".parquet":
        return file.stem == "metadata" and _has_columns(file)
    head = head_of(file)
    try:
        row = json.loads(head.split("\n", 1)[0])
    # The line is longer than the part that was read.
    except (ValueError, RecursionError):
        return '"file_name"' in head and '"objects"' in head and head.lstrip()[:1] == "{"
    return isinstance(row, dict) and "file_name" in row and bool({"objects", "bbox", "bboxes"} & row.keys())


def _has_columns(file: Path) -> bool:
    try:
        return {"file_name", "objects"} <= set(open_parquet(file).schema_arrow.names)
    except (DataError, OSError):
        return False


@reads("metadata of an ImageFolder")
def read_imagefolder(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A folder of pictures with `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, or one per split.

    Boxes are COCO's [x, y, width, height]; corners and shares of the image are found from the values, with a warning.
    Categories are names, or numbers named by a data card (`README.md`) or a list of classes beside the metadata.

    Args:
        path: the folder, or the metadata.
        images: the folder that file names are relative to, where it is another.
        split: train, validation or test, where the folder has such folders.

    Raises:
        DataError: a row without a file name, boxes and categories that are not as many, or missing images.
    """
    file = split_file(Path(path), split, find_imagefolder)
    rows: dict[str, _Image] = {}
    for number, read in _rows(file):
        with collecting(findings, "record_malformed", file, f"row {number}", "image removed"):
            row = read()
            name, objects = _row(row, f"{file}: row {number}")
            rows.setdefault(name, _Image(whole_number(row.get("image_id")))).objects.extend(objects)
    if not rows:
        raise DataError(f"{file}: has no row of an image; there is nothing to train on or evaluate")
    there = sized_pictures(file, rows, images, [file.parent, file.parent / "images"], findings=findings)
    found = [rows[name] for name, *_ in there]
    boxes = [[one.box for one in row.objects] for row in found]
    corners = by_frame(boxes, [size_hw for *_, size_hw in there], str(file))
    names, order, note = _names([one.label for row in found for one in row.objects], file)
    if note:
        warnings.warn(f"{file}: {note}", stacklevel=3)
    # ids are kept where each image has one and no two share it; otherwise images are numbered
    own_ids = len({row.image_id for row in found} - {None}) == len(found)
    pictures = [
        Picture(
            image,
            size_hw,
            tuple(
                AnnotatedObject(names[one.label], tuple(box), one.area_px, is_crowd=one.is_crowd)
                for one, box in zip(row.objects, own.tolist(), strict=True)
            ),
            f"{file.name}: {name}",
            image_id=row.image_id if own_ids else None,
        )
        for (name, image, size_hw), row, own in zip(there, found, corners, strict=True)
    ]
    return assemble(file, pictures, order, file.resolve().parent.name, findings)


def _rows(file: Path) -> Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]:
    """The number of each row, and a function that reads it."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        for number, row in enumerate(open_parquet(file).read().to_pylist(), start=1):
            yield number, partial(dict, row)
    elif suffix == ".csv":
        for number, row in enumerate(csv.DictReader(StringIO(read_text(file), newline="")), start=1):
            yield number, partial(_with_objects, row, f"{file}: row {number}")
    else:
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if line.strip():
                yield number, partial(parse_object, line, f"{file}: row {number}")


def _with_objects(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row of a table, whose objects are text."""
    text = (row.get("objects") or "").strip()
    # pandas writes mappings as Python shows them.
    return {**row, "objects": parse_json(text.replace("'", '"'), where) if text else None}


def _row(row: Mapping[str, Any], where: str) -> tuple[str, list[_Object]]:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: has no file_name, got {str(row)[:80]!r}")
    objects = row.get("objects") if "objects" in row else row
    # `datasets` writes columns of lists; by hand people write a list of objects.
    if isinstance(objects, list):
        if not all(isinstance(one, Mapping) for one in objects):
            raise DataError(f"{where}: objects must have bbox and category, got {str(objects)[:80]}")
        keys = {key for one in objects for key in one}
        objects = {key: [one.get(key) for one in objects] for key in keys}
    if not isinstance(objects, Mapping):
        if objects is None:
            return name, []
        raise DataError(f"{where}: objects must have bbox and category, got {str(objects)[:80]}")
    boxes = objects.get("bbox") or objects.get("bboxes") or []
    key = next((key for key in CATEGORY_KEYS if key in objects), None)
    labels = objects[key] if key is not None else []
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        raise DataError(f"{where}: expected lists of as many boxes as categories, got {str(objects)[:80]}")
    found: list[_Object] = []
    more = [_per_object(objects.get(key), len(boxes)) for key in ("iscrowd", "area")]
    for box, label, crowd, area in zip(boxes, labels, *more, strict=True):
        numbers = finite_numbers(box, 4)
        if numbers is None:
            raise DataError(f"{where}: bbox must be four finite numbers, got {str(box)[:80]}")
        if isinstance(label, bool) or not isinstance(label, int | str) or not str(label).strip():
            raise DataError(f"{where}: {key} must be a name or a number, got {str(label)[:80]!r}")
        found.append(_Object(numbers, label, bool(crowd), finite_number(area)))
    return name, found


def _per_object(values: Any, count: int) -> Sequence[Any]:
    """The values of an optional key, one per object; nothing where they are not as many."""
    return values if isinstance(values, list) and len(values) == count else [None] * count


def _names(labels: list[Any], file: Path) -> tuple[dict[Any, str], list[str] | None, str]:
    """The name of each label, all names in order or None, and a note for the user."""
    folders = [file.parent, file.parent.parent, file.parent.parent.parent]
    if not labels:
        known = class_names(folders)
        return {}, None if known is None else [name for _, name in sorted(known[0].items())], ""
    if not all(isinstance(label, int) for label in labels):
        return {label: str(label) for label in labels}, None, ""
    return named(labels, folders, str(file))
