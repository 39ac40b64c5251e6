"""What an engine computes on: one row per picture, with where it is from; and how workers read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deixis.data.inputs.pictures import Picture, as_pixels
from deixis.recipes.engine.stores import read_range, read_row


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the input, small enough to list millions of them.

    Attributes:
        source: the file that it is from: a picture, a parquet file, a tar, a list, or annotations.
        row: its place in that file, from 0.
        name: of the picture, as it is written in outputs.
        stamp: what changes when the file changes: its size and its time of change.
        path: the picture's own file on a file system that every node sees; None where it has none.
        place: (offset, length) of its bytes in `source`; () for a row of a parquet file, or a file in an object store.
    """

    source: str
    row: int
    name: str
    stamp: tuple[Any, ...] = ()
    path: Path | None = None
    place: tuple[int, ...] = ()

    def picture(self) -> Picture:
        """The picture, read when it is asked for."""
        return Picture(self.name, self.path, self.path) if self.path is not None else _StoredPicture(self.name, self)


class _StoredPicture(Picture):
    """A picture inside a larger file, or in an object store: its bytes are fetched when it is decoded."""

    def load(self) -> UInt8[np.ndarray, "h w 3"]:
        item: Item = self.source
        if item.source.endswith(".parquet"):
            return as_pixels(read_row(item.source, item.row), item.name)
        return as_pixels(read_range(item.source, *item.place), item.name)


def dataset_items(source: str, count: int) -> list[Item]:
    """The images of a data set that a command has read, by their places in it."""
    path = Path(source)
    stamp = file_stamp(path) if path.is_file() else ()
    return [Item(source, row, f"{source}#{row}", stamp) for row in range(count)]


def file_stamp(path: Path) -> tuple[int, ...]:
    """Size and time of change of a file; nothing where it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def shards_of(items: Sequence[Item], rows: int, batch_size: int) -> list[Sequence[Item]]:
    """Items in runs of about `rows`, each of whole batches: a batch holds the same pictures as without shards.

    >>> [len(shard) for shard in shards_of([Item("a", n, "a") for n in range(10)], 5, 4)]
    [8, 2]
    """
    rows = -(-rows // batch_size) * batch_size
    return [items[start : start + rows] for start in range(0, len(items), rows)]
