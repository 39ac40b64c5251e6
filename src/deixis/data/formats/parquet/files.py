"""Rows of parquet files, their pictures left on disk until they are asked for."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deixis.data.reading import require_regular
from deixis.errors import DataError
from deixis.text import one_line

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

INSTALL_HINT = "reading and writing parquet needs pyarrow; install it with: pip install 'deixis[parquet]'"
_GROUPS_KEPT = 4  # each with the bytes of some hundred pictures, in every loading worker
CATEGORY_KEYS = ("category", "categories", "category_id", "label", "labels")


@dataclass(frozen=True)
class Row:
    """One row without its picture's bytes. `objects` is column-wise: a list for each key."""

    file: int
    number: int
    where: str
    image_name: str
    objects: dict[str, list[Any]]
    image_id: Any = None
    width: Any = None
    height: Any = None


class ImageBytes:
    """The bytes of pictures by position, read with their row group; the last few groups are kept.

    Args:
        files: the parquet files.
        places: (file, row) of each position.
        images: the folder of pictures that are outside, for rows that have a path only.
    """

    def __init__(self, files: tuple[Path, ...], places: tuple[tuple[int, int], ...], images: Path | None) -> None:
        self.files, self.places, self.images = files, places, images
        self._tables: dict[int, tuple[ParquetFile, list[int]]] = {}
        self._groups: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:  # loading workers open files of their own
        return vars(self) | {"_tables": {}, "_groups": OrderedDict()}

    def __call__(self, index: int) -> bytes:
        file, row = self.places[index]
        if file not in self._tables:
            (table,) = open_files([self.files[file]])
            counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
            # Each group's first row.
            self._tables[file] = (table, [sum(counts[:group]) for group in range(len(counts))])
        group = bisect_right(self._tables[file][1], row) - 1
        value = self._group(file, group)[row - self._tables[file][1][group]]
        return self._bytes(value, f"{self.files[file].name}: row {row + 1}", self.images or self.files[file].parent)

    def _group(self, file: int, group: int) -> list[Any]:
        if (file, group) not in self._groups:
            column = self._tables[file][0].read_row_group(group, columns=["image"])["image"]
            self._groups[file, group] = column.to_pylist()
        self._groups.move_to_end((file, group))
        while len(self._groups) > _GROUPS_KEPT:
            self._groups.popitem(last=False)
        return self._groups[file, group]

    def _bytes(self, value: Any, where: str, folder: Path) -> bytes:
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return data
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str) or not (folder / path).is_file():
            raise DataError(f"{where}: image has neither bytes nor a file, got path {path!r} in {folder}")
        require_regular(folder / path)
        return (folder / path).read_bytes()


def open_parquet(file: Path) -> ParquetFile:
    """An opened parquet file of any columns.

    Raises:
        DataError: pyarrow is absent, or the file is no parquet file.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(INSTALL_HINT) from error
    require_regular(file)
    try:
        return ParquetFile(file)
    except (OSError, ArrowException) as error:
        raise DataError(f"{file}: cannot read as parquet ({one_line(error)}); download or write it again") from error


def open_files(files: Sequence[Path]) -> list[ParquetFile]:
    """Opened files, checked for the columns of the layout.

    Raises:
        DataError: pyarrow is absent, a file is no parquet file, or lacks `image` or `objects`.
    """
    tables = []
    for file in files:
        table = open_parquet(file)
        columns = table.schema_arrow.names
        if "image" not in columns or "objects" not in columns:
            raise DataError(f"{file}: expected the columns image and objects, found {', '.join(columns)}")
        tables.append(table)
    return tables


def class_names(table: ParquetFile) -> list[str] | None:
    """The names of the `ClassLabel` of the objects' category, from the metadata that `datasets` writes."""
    try:
        content = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        return _class_label(content["info"]["features"]["objects"])
    except (ValueError, KeyError, TypeError):
        return None


def read_rows(file: Path, table: ParquetFile, position: int) -> Iterator[Row]:
    """The rows of a file, all columns but the bytes of pictures; `position` is the file's."""
    names = table.schema_arrow.names
    nested = any(table.schema.column(i).path == "image.path" for i in range(len(table.schema.names)))
    columns = [name for name in ("objects", "image_id", "width", "height") if name in names]
    number = 0
    for batch in table.iter_batches(batch_size=1024, columns=[*columns, *(["image.path"] if nested else [])]):
        for values in batch.to_pylist():
            where = f"{file.name}: row {number + 1}"
            name = (values.get("image") or {}).get("path") or ""
            objects = _by_column(values["objects"], where)
            known = {key: values.get(key) for key in ("image_id", "width", "height")}
            yield Row(position, number, where, name, objects, **known)
            number += 1


def _by_column(objects: Any, where: str) -> dict[str, list[Any]]:
    """A list of objects, or an object of lists, as the latter."""
    if isinstance(objects, dict):
        return {key: value if value is not None else [] for key, value in objects.items()}
    if isinstance(objects, list) and all(isinstance(item, dict) for item in objects):
        # Without an object the keys are unknown.
        keys = list(dict.fromkeys(key for item in objects for key in item)) or ["bbox", "category"]
        return {key: [item.get(key) for item in objects] for key in keys}
    raise DataError(f"{where}: objects must have bbox and category, got {str(objects)[:80]}")


def _class_label(feature: Any) -> list[str] | None:
    """The names under the key of a category, however deep `Sequence`, `List` or `feature` wrap it."""
    if isinstance(feature, list):
        return next(filter(None, map(_class_label, feature)), None)
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) else None
    inner = [feature[key] for key in CATEGORY_KEYS if key in feature]
    return next(filter(None, map(_class_label, [*inner, feature.get("feature")])), None)
