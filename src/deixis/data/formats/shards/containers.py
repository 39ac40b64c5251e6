"""Shard files while they are written, and where each picture's bytes lie in them."""

from __future__ import annotations

import io
import json
import mmap
import struct
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.data.formats.parquet.files import INSTALL_HINT
from deixis.data.formats.parquet.write import ROWS_PER_GROUP, row_of, schema_of
from deixis.errors import DataError
from deixis.records import Sample

_GROUP_BYTES = 32 << 20  # a row group ends here, before ROWS_PER_GROUP large pictures fill the memory
_HEAD = 64


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
                while place >= 0 and zlib.crc32(content[place + 4 : place + 4 + size]) != checksum:
                    place = content.find(struct.pack("<I", size) + head, place + 1)
                if place < 0:
                    raise DataError(f"{self.path}: pyarrow did not store pictures as they are; use --to webdataset")
                offsets.append(place + 4)
                place += 4 + size
        return offsets
