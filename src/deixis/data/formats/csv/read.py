"""Tables of boxes, one row per object: which columns and which boxes is found from names and values."""

from __future__ import annotations

import csv
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import only_file, read_text, same_split
from deixis.data.formats.coco.values import image_size
from deixis.data.formats.csv.columns import DELIMITERS, Columns, split_rows
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, sized_pictures
from deixis.data.formats.shared.box_values import by_convention
from deixis.data.formats.shared.class_lists import listed, named
from deixis.data.formats.shared.split_folders import by_splits, split_file, split_files
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import clean_name

_HEAD_CHARS = 20_000
_ONE_CLASS = "object"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SPLITS = {"training": "train", "validate": "val"}
_SEPARATORS = dict(zip(DELIMITERS, ("commas", "semicolons", "tabs", "bars"), strict=True))


@dataclass
class _Image:
    """The rows of one image: boxes as written, their labels, crowds and places."""

    boxes: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    size_hw: tuple[int, int] | None = None
    splits: set[str] = field(default_factory=set)


def find_csv(path: Path) -> list[Path]:
    """The tables of boxes in a folder, in its folders train, valid and test, or in `annotations`; or one itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() in (".csv", ".tsv") and _is_table(path) else []
    for place in (path, path / "annotations"):
        files = [file for ending in ("csv", "tsv") for file in split_files(place, ending, _is_table)]
        if files:
            return files
    return []


def _is_table(file: Path) -> bool:
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            return split_rows(text.read(_HEAD_CHARS).replace("\r\n", "\n"), limit=1) is not None
    except (OSError, ValueError, csv.Error, DataError):
        return False


@reads("a table of boxes")
def read_csv(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A CSV file with one row per box, or the folder that holds one.

    Columns are known by their names (`filename`, `image_id`, `xmin`, `x1`, `bbox`, `class`, `label`, …) or, without
    a first row of names, by their values. Boxes are corners, sizes or centres, in pixels or as shares of the image; a
    box may be one text of four numbers. What is not named is found from the values, and a warning says what was taken.
    Files or folders named after train, valid and test are splits, as the values of a column of sets are.
    A row without a box is an image without objects. Numbers as classes get their names from a list beside the file.

    Args:
        split: the rows to read of a table with a column of sets, such as train or test.

    Raises:
        DataError: no such table, a row that does not fit it, several sets and none named, or missing images.
    """
    file = Path(path)
    if file.is_dir():
        files = find_csv(file)
        if by_splits(file, files):
            file, split = split_file(file, split, find_csv), None
        else:
            file = only_file(files, file, "CSV file of boxes")
    found = split_rows(read_text(file))
    if found is None:
        raise DataError(f"{file}: has no columns of images and boxes; name them in the first row, as filename,xmin,…")
    rows, delimiter, columns = found
    table = _of_split(_gather(file, rows, columns, findings), split, file)
    folders = likely_folders(file.parent, file.stem)
    stated = {name: row.size_hw for name, row in table.items()}
    there = sized_pictures(file, table, images, folders, findings=findings, stated_hw=stated)
    found_rows = [table[name] for name, *_ in there]
    notes = [f"columns are separated by {_SEPARATORS[delimiter]}"] if delimiter != "," else []
    labels, order, note = _classes(file, found_rows, columns)
    sizes_hw = [size_hw for *_, size_hw in there]
    corners, how = by_convention([row.boxes for row in found_rows], sizes_hw, columns.kind)
    notes += [text for text in (note, how) if text]
    pictures = []
    for (name, image, size_hw), row, own in zip(there, found_rows, corners, strict=True):
        objects = tuple(
            AnnotatedObject(labels[label], tuple(box), is_crowd=crowd)
            for label, box, crowd in zip(row.labels, own.tolist(), row.crowd, strict=True)
        )
        pictures.append(Picture(image, size_hw, objects, f"{file.name}: {name}"))
    if notes:
        warnings.warn(f"{file}: {'; '.join(notes)}", stacklevel=3)
    return assemble(file, pictures, order, file.stem, findings)


def _gather(
    file: Path, rows: Sequence[tuple[int, Sequence[str]]], columns: Columns, findings: Findings | None
) -> dict[str, _Image]:
    """The rows by image."""
    table: dict[str, _Image] = {}
    for line, row in rows:
        with collecting(findings, "record_malformed", file, f"line {line}", "row removed"):
            where = f"{file}: line {line}"
            needed = max(columns.image, columns.label or 0, columns.crowd or 0)
            if len(row) <= needed or not row[columns.image]:
                raise DataError(f"{where}: expected {needed + 1} values and more, got {len(row)}; correct the row")
            image = table.setdefault(row[columns.image], _Image())
            if columns.set is not None and columns.set < len(row):
                image.splits.add(_split_name(row[columns.set]))
            boxes = _boxes(row, columns, where)
            label = row[columns.label] if columns.label is not None else _ONE_CLASS
            if boxes and not label:
                raise DataError(f"{where}: has a box without a class; add the class")
            image.boxes += boxes
            image.labels += [label] * len(boxes)
            crowd = columns.crowd is not None and row[columns.crowd].lower() in ("1", "true", "1.0", "yes")
            image.crowd += [crowd] * len(boxes)
            image.size_hw = image.size_hw or _size(row, columns, where)
    if not table:
        raise DataError(f"{file}: has no row of an image; there is nothing to train on or evaluate")
    return table


def _boxes(row: Sequence[str], columns: Columns, where: str) -> list[list[float]]:
    """The boxes of a row; none where their columns are empty."""
    fields = [row[position] for position in columns.box if position < len(row)]
    if not any(fields) or all(field.lower() in ("", "nan", "none", "null", "[]", "na") for field in fields):
        return []
    if columns.kind == "text":
        return _from_text(fields[0], where)
    try:
        numbers = [float(field.replace(",", ".")) for field in fields]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: expected four numbers of a box, got {', '.join(fields)[:80]!r}; correct the row")
    return [numbers]


def _from_text(text: str, where: str) -> list[list[float]]:
    """One box or several in a text: `[x, y, w, h]`, `x y w h`, `[[…], […]]`, or JSON with named numbers."""
    if "{" in text:
        try:
            content = json.loads(text.replace("'", '"'))  # pandas writes mappings as Python shows them
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected a box as JSON, got {text[:80]!r}; correct the row") from error
        rows = content if isinstance(content, list) else [content]
        text = " ".join(str(value) for row in rows if isinstance(row, Mapping) for value in row.values())
    numbers = [float(number) for number in _NUMBER.findall(text)]
    if not numbers or len(numbers) % 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: expected four numbers of a box, got {text[:80]!r}; correct the row")
    return [numbers[i : i + 4] for i in range(0, len(numbers), 4)]


def _size(row: Sequence[str], columns: Columns, where: str) -> tuple[int, int] | None:
    if columns.height is None or columns.width is None or max(columns.height, columns.width) >= len(row):
        return None
    height, width = row[columns.height], row[columns.width]
    if not height or not width:
        return None
    try:
        return image_size(float(height), float(width))
    except ValueError as error:
        raise DataError(f"{where}: {error}; correct the row") from error


def _split_name(text: str) -> str:
    name = text.strip().lower()
    return same_split(_SPLITS.get(name, name))


def _of_split(table: dict[str, _Image], split: str | None, file: Path) -> dict[str, _Image]:
    """The images of one set, or all where the table has a single one."""
    known = sorted({name for image in table.values() for name in image.splits if name})
    if split is None and len(known) > 1:
        raise DataError(f"{file}: has the splits {', '.join(known)}; name one, as in {file}#{known[0]}")
    if split is None:
        return table
    wanted = _split_name(split)
    if wanted not in known:
        raise NoSuchSplitError(f"{file}: has no split {split!r}, only {', '.join(known) or 'no column of sets'}")
    return {name: image for name, image in table.items() if wanted in image.splits}


def _classes(file: Path, images: Sequence[_Image], columns: Columns) -> tuple[dict[str, str], list[str] | None, str]:
    """The name of each label, all names in order or None, and a note for the user."""
    labels = sorted({label for image in images for label in image.labels})
    if columns.label is None:
        return {_ONE_CLASS: _ONE_CLASS}, [_ONE_CLASS], f"has no column of classes; every object is {_ONE_CLASS!r}"
    folders = [file.parent, file.parent.parent]
    order = listed(list(map(clean_name, labels)), folders)
    # With gaps in the column, pandas writes class 1 as 1.0.
    if order is not None or not labels or not all(re.fullmatch(r"\d{1,9}(\.0*)?", label) for label in labels):
        return {label: clean_name(label) for label in labels}, order, ""
    numbers = {label: int(float(label)) for label in labels}
    names, order, note = named(list(numbers.values()), folders, str(file))
    return {label: names[number] for label, number in numbers.items()}, order, note
