"""Bytes of pictures from local files, object stores, tars and parquet files, by address."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from deixis.data.formats.parquet.files import INSTALL_HINT
from deixis.errors import DataError, OptionError
from deixis.text import one_line

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "path", "file_name", "file", "url")
"""Columns of a parquet file, or of a list, that may hold pictures or their paths; the first that is there counts."""


def address_of(path: Path | str) -> str:
    """A path as it was typed: `Path` makes one slash of the two in s3://bucket/photos. A file:// address is its path.

    >>> address_of(Path("s3://bucket/a.jpg")), address_of(Path("photos/a.jpg"))
    ('s3://bucket/a.jpg', 'photos/a.jpg')
    """
    typed = str(path)
    if typed.startswith("file:/"):
        return "/" + typed.removeprefix("file:").lstrip("/")
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)", r"\1://", typed)


def is_remote(address: str) -> bool:
    """Whether an address has a scheme, as in s3://bucket."""
    return "://" in address


@lru_cache(maxsize=64)
def file_system(scheme: str) -> Any:
    """The fsspec file system of a scheme; that of pyarrow where fsspec has none installed.

    Raises:
        OptionError: neither knows it.
    """
    import fsspec  # torch requires it

    try:
        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as missing:
        try:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            return ArrowFSWrapper(FileSystem.from_uri(f"{scheme}://deixis")[0])
        except Exception as error:
            raise OptionError(f"{scheme}://: cannot be read here ({one_line(missing)}); install it") from error


def split(address: str) -> tuple[Any, str]:
    """A file system and the path in it."""
    scheme, separator, path = address.partition("://")
    if not separator:
        return file_system("file"), address
    # fsspec's HTTP file system takes the whole address for a path.
    return file_system(scheme), address if scheme in ("http", "https") else path


def open_bytes(address: str) -> Any:
    """An open, seekable file.

    Raises:
        DataError: it cannot be opened.
    """
    system, path = split(address)
    try:
        return system.open(path, "rb")
    except Exception as error:  # every store has errors of its own
        raise DataError(f"{address}: cannot be opened ({one_line(error)})") from error


def read_range(address: str, offset: int = 0, length: int | None = None) -> bytes:
    """A file's bytes, or a part of them.

    Raises:
        DataError: they cannot be read.
    """
    system, path = split(address)
    try:
        return bytes(system.cat_file(path, offset, None if length is None else offset + length))
    except Exception as error:
        raise DataError(f"{address}: cannot be read ({one_line(error)})") from error


def parquet_file(address: str) -> Any:
    """An open parquet file.

    Raises:
        DataError: pyarrow is absent, or it is no parquet file.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(INSTALL_HINT) from error
    try:
        return ParquetFile(open_bytes(address))
    except (OSError, ArrowException) as error:
        raise DataError(f"{address}: cannot be read as parquet ({one_line(error)})") from error


def image_column(address: str, columns: list[str]) -> str:
    """The column of the pictures.

    Raises:
        DataError: there is none.
    """
    for name in IMAGE_COLUMNS:
        if name in columns:
            return name
    raise DataError(f"{address}: no column of pictures; expected one of {', '.join(IMAGE_COLUMNS)}, found {columns}")


def read_row(address: str, row: int) -> bytes:
    """The picture in a row of a parquet file; the last row groups read are kept.

    Raises:
        DataError: it cannot be read, or the row has no picture.
    """
    _, column, starts = _opened(address)
    group = max(place for place, start in enumerate(starts) if start <= row)
    value = _group(address, group)[row - starts[group]]
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return data
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        raise DataError(f"{address}: row {row} has no picture in column {column}, got {type(value).__name__}")
    return read_range(beside(address, path))


def beside(address: str, path: str) -> str:
    """A path that a file names: relative to the file's folder unless it is absolute or an address."""
    if is_remote(path) or path.startswith("/"):
        return path
    return f"{address.rpartition('/')[0]}/{path}" if "/" in address else path


@lru_cache(maxsize=8)
def _opened(address: str) -> tuple[Any, str, list[int]]:
    file = parquet_file(address)
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return file, image_column(address, file.schema_arrow.names), [sum(counts[:n]) for n in range(len(counts))]


@lru_cache(maxsize=2)
def _group(address: str, group: int) -> list[Any]:
    file, column, _ = _opened(address)
    values: list[Any] = file.read_row_group(group, columns=[column])[column].to_pylist()
    return values
