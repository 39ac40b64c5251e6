"""A folder of shards as a data set: parquet files or WebDataset tars with the pictures inside, and an index of them."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shards.index import MANIFEST, ShardIndex, sha256_of
from deixis.data.reading import reads
from deixis.data.sets.embedded import Changed, EmbeddedDataset
from deixis.data.sets.mixing import Joined
from deixis.errors import DataError, UnreadableImageError
from deixis.records import Dataset

_OPEN_FILES = 32


class ShardBytes:
    """The image files of a folder of shards, by position; the shards read last stay open."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self._open: OrderedDict[Path, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:  # loading workers open files of their own
        return {"index": self.index, "_open": OrderedDict()}

    def __call__(self, position: int) -> bytes:
        row = self.index.row(position)
        file, offset, size = self.index.file_of(row), int(row["offset"]), int(row["bytes"])
        listed = self.index.manifest.shards[int(row["shard"])].bytes
        if not (offset >= 0 and 0 < size <= listed - offset):
            raise DataError(f"{file}: image {position + 1} would be outside of the shard; write the shards again")
        try:
            # `pread` moves no position, so forked processes may share the descriptor.
            data = os.pread(self._handle(file), size, offset)
        except OSError as error:
            raise UnreadableImageError(f"{file}: cannot be read ({error.strerror}); copy the shard again") from error
        if zlib.crc32(data) != row["crc32"]:
            raise UnreadableImageError(
                f"{file}: this shard is damaged (image {position + 1} is not what was written); copy the shard again"
            )
        return data

    def _handle(self, file: Path) -> int:
        if file not in self._open:
            self._open[file] = os.open(file, os.O_RDONLY)
        self._open.move_to_end(file)
        while len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return self._open[file]

    def __del__(self) -> None:
        for handle in getattr(self, "_open", {}).values():  # unpickling may fail before it is there
            os.close(handle)


def find_shards(path: Path) -> list[Path]:
    """The `shards.json` of a folder, or such a file itself."""
    file = path / MANIFEST if path.is_dir() else path
    return [file] if file.name == MANIFEST and file.exists() else []


@reads("shards")
def read_shards(path: str | Path, images: Path | None = None) -> EmbeddedDataset:
    """A folder that `deixis data shard` wrote: nothing of it is held in memory, and any picture is one read.

    Each picture's checksum is compared when it is read, each file's size when the folder is opened.

    Args:
        path: the folder or its `shards.json`.
        images: not used: pictures are inside.

    Raises:
        DataError: a shard is missing or has another size than listed, or the index does not fit.
    """
    del images
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    index = ShardIndex(folder)
    return EmbeddedDataset(index, index.vocabulary, folder.resolve().name, ShardBytes(index))


def verify_shards(folder: Path) -> int:
    """Compare every file with its SHA-256; how many files there are.

    Raises:
        DataError: a file is missing, incomplete or damaged.
    """
    manifest = ShardIndex(folder).manifest
    for listed in (*manifest.shards, *manifest.index):
        if sha256_of(folder / listed.file) != listed.sha256:
            raise DataError(
                f"{folder / listed.file}: this file is damaged (its SHA-256 is not the listed one); copy it again"
            )
    return len(manifest.shards) + len(manifest.index)


def shard_index(dataset: Dataset) -> ShardIndex | None:
    """The index of a data set that lies in shards; None for any other."""
    while isinstance(dataset, Changed):
        dataset = dataset.dataset
    found = dataset.records if isinstance(dataset, EmbeddedDataset) else None
    return found if isinstance(found, ShardIndex) else None


def shard_sizes(dataset: Dataset) -> Int[np.ndarray, " shards"] | None:
    """Images of each shard; None where some of the data does not lie in shards, or is not shown once in each epoch."""
    if isinstance(dataset, Joined):
        found = [shard_sizes(part) for part in dataset.parts]
        sizes = [one for one in found if one is not None]
        return np.concatenate(sizes) if dataset.mixture is None and len(sizes) == len(found) else None
    index = shard_index(dataset)
    return None if index is None else index.shard_sizes


SHARDS = Format(
    "shards",
    find_shards,
    read_shards,
    holds=Holds(areas=True, crowds=True, image_ids=True, category_ids=True, absent=True, not_exhaustive=True),
    decisive=True,  # the parquet files beside it are its own
)
