"""Data sets to folders of shards, and where each picture's bytes lie in them."""

from __future__ import annotations

import io
import json
import mmap
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np

from deixis.atomic_files import new_folder
from deixis.data.formats.parquet.files import INSTALL_HINT
from deixis.data.formats.parquet.write import ROWS_PER_GROUP, row_of, schema_of
from deixis.data.formats.placing import image_contents
from deixis.data.formats.shards.index import IMAGE, MANIFEST, OBJECT, Manifest, ShardFile
from deixis.errors import DataError
from deixis.records import Dataset, Sample

_GROUP_BYTES = 32 << 20  # a row group ends here, before ROWS_PER_GROUP large pictures fill the memory
_HEAD = 64  # bytes that a picture is searched by


class TarShard:
    """A WebDataset tar: `000000017.jpg` and `000000017.json` for each image."""

    def __init__(self, path: Path) -> None:
        self.path, self.images = path, 0
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  closed by `close`
        self._offsets: list[int] = []

    def add(self, sample: Sample, key: str, name: str, content: bytes) -> None:
        """Write an image and its annotations."""
        suffix = PurePosixPath(name).suffix.lower() or ".img"
        self._file(f"{key}{suffix}", content)
        # `addfile` stops behind the content and its padding to whole blocks.
        self._offsets.append(self._tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        values = row_of(sample, name, b"", 0)
        known = {key: value for key, value in values.items() if key != "image"}
        names = [sample.vocabulary.names[i] for i in values["objects"]["category"]]
        self._file(f"{key}.json", json.dumps({"name": name, **known, "category_names": names}).encode())
        self.images += 1

    def _file(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def close(self) -> list[int]:
        """End the file; the first byte of each picture in it."""
        self._tar.close()
        return self._offsets


class ParquetShard:
    """A parquet file in the `objects` layout, whose pictures lie in it as they are, uncompressed."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        try:
            import pyarrow
            from pyarrow.parquet import ParquetWriter
        except ImportError as error:
            raise DataError(INSTALL_HINT) from error
        self.path, self.images = path, 0
        self._schema = schema_of(names)
        self._table = pyarrow.Table.from_pylist
        # Compressed, or equal pictures stored once, they could not be read from their place.
        self._writer = ParquetWriter(path, self._schema, compression="none", use_dictionary=False)
        self._rows: list[dict[str, Any]] = []
        self._bytes = self._objects = 0
        self._written: list[tuple[bytes, int, int]] = []  # the first bytes of each picture, its size and checksum

    def add(self, sample: Sample, key: str, name: str, content: bytes) -> None:
        """Write an image and its annotations."""
        del key
        self._rows.append(row_of(sample, name, content, self._objects))
        self._written.append((content[:_HEAD], len(content), zlib.crc32(content)))
        self._objects += len(sample.instances)
        self._bytes += len(content)
        self.images += 1
        if len(self._rows) >= ROWS_PER_GROUP or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0

    def close(self) -> list[int]:
        """End the file; the first byte of each picture in it."""
        self._flush()
        self._writer.close()
        offsets, place = [], 0
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for head, size, checksum in self._written:
                # PLAIN encoding: a value is its length in 4 bytes, then itself
                place = content.find(struct.pack("<I", size) + head, place)
                # The same bytes may occur inside another picture.
                while place >= 0 and zlib.crc32(content[place + 4 : place + 4 + size]) != checksum:
                    place = content.find(struct.pack("<I", size) + head, place + 1)
                if place < 0:
                    raise DataError(f"{self.path}: pyarrow did not store pictures as they are; use --to webdataset")
                offsets.append(place + 4)
                place += 4 + size
        return offsets


Container = Literal["parquet", "webdataset"]
_SUFFIX = {"parquet": ".parquet", "webdataset": ".tar"}


def write_shards(
    dataset: Dataset,
    folder: Path,
    container: Container = "parquet",
    max_shard_mb: float = 256,
    advance: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Write a data set into a new folder, whole or not at all; pictures as they are, byte for byte.

    Args:
        container: parquet files in the `objects` layout of Hugging Face, or WebDataset tars of pairs `KEY.jpg` and
            `KEY.json`.
        max_shard_mb: a shard ends with the picture that reaches this many million bytes.
        advance: called after each image.

    Returns:
        how many images have what shards do not hold, by what it is.

    Raises:
        DataError: the folder is not empty, pyarrow is missing, or an image cannot be read.
    """
    if not len(dataset):
        raise DataError("no image to write into shards")
    lost: Counter[str] = Counter()
    with new_folder(folder) as draft:
        (draft / "data").mkdir()
        (draft / "index").mkdir()
        with _Tables(draft / "index") as tables:
            shard, content_bytes = _new_shard(draft, container, 0, dataset), 0
            done: list[ParquetShard | TarShard] = []
            for number, (sample, name, content) in enumerate(image_contents(dataset)):
                if content_bytes >= max_shard_mb * 1e6:
                    tables.place(shard.close())
                    done.append(shard)
                    shard, content_bytes = _new_shard(draft, container, len(done), dataset), 0
                tables.add(sample, name, content, shard=len(done))
                shard.add(sample, f"{number:09d}", name, content)
                content_bytes += len(content)
                lost.update(_not_held(sample))
                advance()
            tables.place(shard.close())
            done.append(shard)
        shards = []
        for number, one in enumerate(done):
            # The names give the number of shards, which is known only now.
            file = f"data/train-{number:05d}-of-{len(done):05d}{_SUFFIX[container]}"  # as `datasets` finds a split
            one.path.rename(draft / file)
            shards.append(ShardFile.of(draft, file, one.images))
        index = tuple(ShardFile.of(draft, f"index/{name}.bin") for name in ("images", "objects", "details"))
        vocabulary = dataset.vocabulary
        manifest = Manifest(container, vocabulary.names, vocabulary.category_ids, tuple(shards), index)
        (draft / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return lost


def _new_shard(folder: Path, container: Container, number: int, dataset: Dataset) -> ParquetShard | TarShard:
    path = folder / "data" / f"{number:05d}"
    return TarShard(path) if container == "webdataset" else ParquetShard(path, dataset.vocabulary.names)


def _not_held(sample: Sample) -> list[str]:
    found = {
        "captions": bool(sample.caption),
        "masks": sample.instances.masks_rle is not None,
        "scores": sample.instances.scores is not None,
    }
    return [what for what, there in found.items() if there]


class _Tables:
    """The files of the index while they are written; images get their places when their shard is closed."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, IO[bytes]] = {
            name: (folder / f"{name}.bin").open("wb") for name in ("images", "objects", "details")
        }
        self._rows: list[tuple[int, ...]] = []
        self._objects = self._details = 0

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:  # where the last image's objects and details end
            end = np.zeros(1, IMAGE)
            end["object"], end["detail"] = self._objects, self._details
            self._files["images"].write(end.tobytes())
        for file in self._files.values():
            file.close()

    def add(self, sample: Sample, name: str, content: bytes, *, shard: int) -> None:
        """An image of the shard that is being written."""
        objects = sample.instances
        height, width = sample.size_hw
        where = (0, len(content), sample.image_id, self._objects, self._details)
        self._rows.append((shard, height, width, zlib.crc32(content), *where))
        rows = np.zeros(len(objects), OBJECT)
        rows["box_xyxy_px"], rows["area_px"] = objects.boxes_xyxy_px, objects.areas_px
        rows["class_id"], rows["crowd"] = objects.class_ids, objects.is_crowd
        self._files["objects"].write(rows.tobytes())
        self._objects += len(rows)
        details: dict[str, object] = {"name": name}
        if sample.absent_class_ids is not None:
            details["absent"] = sorted(sample.absent_class_ids)
        if sample.not_exhaustive_class_ids:
            details["not_exhaustive"] = sorted(sample.not_exhaustive_class_ids)
        self._details += self._files["details"].write(json.dumps(details).encode())

    def place(self, offsets: list[int]) -> None:
        """Write the rows of a closed shard, whose pictures lie at these bytes."""
        rows = np.array(self._rows, IMAGE)
        rows["offset"] = offsets
        self._files["images"].write(rows.tobytes())
        self._rows = []
