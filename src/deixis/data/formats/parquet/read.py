"""Hugging Face parquet files in the `objects` layout: columns `image` and `objects` with `bbox` and `category`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import clip_instances, same_split, vocabulary_of, warn_dropped
from deixis.data.formats.coco.values import finite_number, finite_numbers
from deixis.data.formats.parquet.files import CATEGORY_KEYS, ImageBytes, Row, class_names, open_files, read_rows
from deixis.data.formats.shared.box_values import Frame, by_frame
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads
from deixis.data.sets.embedded import EmbeddedDataset
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import Instances, Sample, Vocabulary, size_fault


def find_parquet(path: Path) -> list[Path]:
    """The parquet files of a folder, or of its `data`, sorted by name; or a parquet file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".parquet" else []
    for place in (path, path / "data"):
        files = sorted(file for file in place.glob("*.parquet") if not is_left_by_macos(file))
        if files:
            return files
    return []


@reads("parquet")
def read_parquet(
    path: str | Path,
    images: Path | None = None,
    split: str | None = None,
    box_format: str | None = None,
    findings: Findings | None = None,
) -> EmbeddedDataset:
    """A parquet file or a folder of them, as `datasets` writes them and the Hub shows them.

    Boxes are COCO's [x, y, width, height]. Some public sets hold corners [x1, y1, x2, y2]; where some box leaves its
    image when read as the first and none does as the second, they are read as corners, with a warning, and
    likewise boxes that are shares of the image. Class names
    are those of the `ClassLabel` in the file's metadata, or the categories themselves where they are text. `area`,
    `iscrowd`, `image_id`, `width` and `height` are used if they are there. Pictures are decoded when asked for; one
    costs the reading of its row group (of the last few, kept), so shuffled training reads files faster
    (`deixis data convert`).

    Args:
        images: the folder that image paths are relative to, for rows without bytes; beside the file if not given.
        split: train, validation or test, as file names begin; may be left out where there is one.
        box_format: `xywh` or `xyxy`; recognised from the boxes when not given.

    Raises:
        DataError: pyarrow is not installed, no such columns, no class names, or a row that does not fit them.
    """
    files = _files_of(Path(path), split)
    tables = open_files(files)
    rows = [row for n, (file, table) in enumerate(zip(files, tables, strict=True)) for row in read_rows(file, table, n)]
    if not rows:
        raise DataError(f"{path}: has no row; there is nothing to train on or evaluate")
    names = class_names(tables[0])
    if findings is not None:
        rows = _usable(rows, names, images, files, findings)
    categories = [_categories(row, names) for row in rows]
    if names is None:
        names = sorted({category for found in categories for category in found if isinstance(category, str)})
    vocabulary = vocabulary_of(names, str(path))
    class_of = {name: position for position, name in enumerate(names)}
    pictures = ImageBytes(tuple(files), tuple((row.file, row.number) for row in rows), images)
    sizes = [_size(row, pictures, index) for index, row in enumerate(rows)]
    boxes = [_boxes(row, len(found)) for row, found in zip(rows, categories, strict=True)]
    # None is found from the values.
    frame: Frame | None = {None: None, "xyxy": "corners"}.get(box_format, "xywh")
    corners = by_frame(boxes, sizes, str(path), frame)
    records, dropped = [], []
    for number, (row, found, size_hw, given) in enumerate(zip(rows, categories, sizes, corners, strict=True), start=1):
        class_ids = [category if isinstance(category, int) else class_of[category] for category in found]
        instances = _instances(row, given, class_ids)
        instances, lost = clip_instances(instances, size_hw, keep_all=findings is not None)
        dropped += [row.where] * lost
        records.append(_sample(row, instances, size_hw, vocabulary, number))
    warn_dropped(str(path), dropped)
    name = Path(path).stem if Path(path).is_file() else Path(path).resolve().name
    return EmbeddedDataset(tuple(records), vocabulary, name, pictures)


def _usable(
    rows: Sequence[Row], names: Sequence[str] | None, images: Path | None, files: Sequence[Path], findings: Findings
) -> list[Row]:
    """The rows that the reader does not refuse."""
    pictures = ImageBytes(tuple(files), tuple((row.file, row.number) for row in rows), images)
    kept = []
    for index, row in enumerate(rows):
        with collecting(findings, "record_malformed", files[row.file], row.where, "image removed"):
            categories = _categories(row, names)
            _boxes(row, len(categories))
            for key in ("area", "iscrowd"):
                _numbers(row, key, len(categories))
            _size(row, pictures, index)
            kept.append(row)
    if not kept:
        raise DataError(f"{files[0]}: none of its {len(rows)} rows can be used; compare them with docs/formats.md")
    return kept


def _files_of(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        own = _split_of(path)
        if split is not None and same_split(own) != same_split(split):
            raise NoSuchSplitError(f"{path}: is one file, with no split {split!r}; give the folder of the splits")
        return [path]
    files = find_parquet(path)
    if not files:
        raise DataError(f"{path}: no parquet files in it or in its 'data'")
    splits = list(dict.fromkeys(map(_split_of, files)))
    wanted = split
    if split is not None and split not in splits:
        wanted = next((name for name in splits if same_split(name) == same_split(split)), split)
    if wanted is None and len(splits) > 1:
        raise DataError(f"{path}: has the splits {', '.join(splits)}; name one, as in {path}#{splits[0]}")
    if wanted is not None and wanted not in splits:
        raise NoSuchSplitError(f"{path}: has no split {split!r}, only {', '.join(splits)}")
    return [file for file in files if wanted is None or _split_of(file) == wanted]


def _split_of(file: Path) -> str:
    return file.name.split("-")[0].split(".")[0]  # train-00000-of-00001.parquet


def _categories(row: Row, names: Sequence[str] | None) -> list[int | str]:
    key = next((key for key in CATEGORY_KEYS if key in row.objects), None)
    if key is None:
        raise DataError(f"{row.where}: objects has no {' or '.join(CATEGORY_KEYS[:2])}, only {', '.join(row.objects)}")
    values = row.objects[key] or []
    for value in values:
        if isinstance(value, str) and (names is None or value in names) and value.strip():
            continue
        if isinstance(value, int) and names is not None and 0 <= value < len(names):
            continue
        known = "a number without a name (no ClassLabel)" if names is None else f"not one of {len(names)} classes"
        raise DataError(f"{row.where}: {key} {value!r} is {known}; correct the data set's features")
    return list(values)


def _boxes(row: Row, count: int) -> list[list[float]]:
    values = row.objects.get("bbox") or []
    if len(values) != count:
        raise DataError(f"{row.where}: has {len(values)} boxes and {count} categories; they must be as many")
    boxes = []
    for value in values:
        numbers = finite_numbers(value, 4)
        if numbers is None:
            raise DataError(f"{row.where}: bbox must be four finite numbers, got {value!r}")
        boxes.append(numbers)
    return boxes


def _size(row: Row, pictures: ImageBytes, index: int) -> tuple[int, int]:
    height, width = (finite_number(value) for value in (row.height, row.width))
    if height and width and size_fault((height, width)) is None:
        return int(height), int(width)
    return image_sizes_hw(row.where, pictures(index))[0]


def _instances(row: Row, boxes_xyxy_px: np.ndarray, class_ids: list[int]) -> Instances:
    areas, crowd = (_numbers(row, key, len(class_ids)) for key in ("area", "iscrowd"))
    return Instances.build(
        boxes_xyxy_px, class_ids, None if crowd is None else [value > 0 for value in crowd], areas_px=areas
    )


def _numbers(row: Row, key: str, count: int) -> list[float] | None:
    """The values of an optional key, one per object; None where the key or a value is absent."""
    values = row.objects.get(key)
    if values is None or None in values:
        return None
    numbers = [finite_number(int(value) if isinstance(value, bool) else value) for value in values]
    found = [number for number in numbers if number is not None]
    if len(values) != count or len(found) != count:
        raise DataError(f"{row.where}: expected {count} numbers of {key}, one per object, got {str(values)[:80]}")
    return found


def _sample(row: Row, instances: Instances, size_hw: tuple[int, int], vocabulary: Vocabulary, number: int) -> Sample:
    image_id = row.image_id if isinstance(row.image_id, int) else number
    return Sample(Path(row.image_name or f"{image_id}.jpg"), size_hw, instances, vocabulary, image_id, row.where)
