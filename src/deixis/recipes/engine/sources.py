"""The pictures that --images stands for: files, folders, lists, parquet files, WebDataset tars, object stores.

photos/  a.jpg  "*.png"             files, as the local engine finds them, in the same order
list.txt list.csv list.jsonl        one picture per line; paths are relative to the list
set.parquet                         a column of pictures (bytes, or {"bytes", "path"}) or of paths
shard-000000.tar                    the pictures of a WebDataset tar
s3://bucket/photos/                 any of these in an object store that fsspec or pyarrow can read
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.data.inputs.find import expand
from deixis.data.pixels.frames import VIDEO_SUFFIXES
from deixis.data.pixels.image_files import IMAGE_SUFFIXES
from deixis.errors import DataError, OptionError
from deixis.options.used_models import Engine
from deixis.recipes.engine.cluster import require_cluster
from deixis.recipes.engine.items import Item, file_stamp
from deixis.recipes.engine.stores import (
    address_of,
    beside,
    image_column,
    is_remote,
    open_bytes,
    parquet_file,
    read_range,
    split,
)
from deixis.text import one_line

SHARDS, LISTS = (".parquet", ".tar"), (".txt", ".csv", ".jsonl")


def ray_items(engine: Engine, paths: Iterable[Path]) -> list[Item]:
    """`list_items`, once Ray is found and the cluster answers.

    Raises:
        DeixisError: one of them cannot be used.
    """
    require_cluster(engine.address)
    return list_items(paths)


def list_items(paths: Iterable[Path]) -> list[Item]:
    """Every picture, each once, in order.

    Raises:
        DataError: a source does not exist, cannot be read, or has no picture.
        OptionError: a source is a video.
    """
    found: dict[str, Item] = {}
    for path in paths:
        for item in _of_address(address_of(path)):
            found.setdefault(item.name, item)
    if not found:
        raise DataError("no images to read: give image files, folders, lists, parquet files or tars")
    return list(found.values())


def _of_address(address: str) -> Iterator[Item]:
    if is_remote(address):
        yield from _of_store(address)
        return
    path = Path(address)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SHARDS)
        if not files:
            files = expand(path, videos=True)
        # Pictures beside shards are read as well.
        elif images := [file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]:
            files = sorted([*files, *images])
    elif path.suffix.lower() in (*SHARDS, *LISTS) and path.is_file():
        files = [path]
    else:
        files = expand(path, videos=True)
    for file in files:
        yield from _of_file(str(file), file_stamp(file))


def _of_store(address: str) -> Iterator[Item]:
    system, path = split(address)
    scheme = address.partition("://")[0]
    wanted = (*IMAGE_SUFFIXES, *SHARDS)
    try:
        if any(sign in path for sign in "*?["):
            names = sorted(system.glob(path))
        else:
            names = [path] if system.isfile(path) else sorted(system.find(path))
            names = names if names == [path] else [n for n in names if PurePosixPath(n).suffix.lower() in wanted]
        facts = [system.info(name) for name in names]
    except OptionError:
        raise
    except Exception as error:  # every store has errors of its own
        raise DataError(f"{address}: cannot be listed ({one_line(error)})") from error
    if not names:
        raise DataError(f"{address}: no picture, parquet file or tar there")
    for name, fact in zip(names, facts, strict=True):
        stamp = (fact.get("size"), str(fact.get("ETag") or fact.get("mtime") or ""))
        yield from _of_file(name if is_remote(name) else f"{scheme}://{name}", stamp)


def _of_file(address: str, stamp: tuple[object, ...]) -> Iterator[Item]:
    suffix = PurePosixPath(address).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        raise OptionError(f"{address}: is a video; --engine ray takes pictures, --engine local takes videos")
    if suffix == ".parquet":
        file = parquet_file(address)
        image_column(address, file.schema_arrow.names)
        yield from (Item(address, row, f"{address}/{row:08d}", stamp) for row in range(file.metadata.num_rows))
    elif suffix == ".tar":
        yield from _of_tar(address, stamp)
    elif suffix in LISTS:
        yield from _of_list(address, suffix)
    else:
        yield Item(address, 0, address, stamp, None if is_remote(address) else Path(address))


def _of_tar(address: str, stamp: tuple[object, ...]) -> Iterator[Item]:
    try:
        with open_bytes(address) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [one for one in tar if one.isfile() and PurePosixPath(one.name).suffix.lower() in IMAGE_SUFFIXES]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{address}: cannot be read as an uncompressed tar ({one_line(error)})") from error
    if not members:
        raise DataError(f"{address}: no picture in this tar")
    for row, one in enumerate(members):
        yield Item(address, row, f"{address}/{one.name}", stamp, place=(one.offset_data, one.size))


def _of_list(address: str, suffix: str) -> Iterator[Item]:
    try:
        text = read_range(address).decode("utf-8-sig")
        if suffix == ".txt":
            named = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        else:
            rows = list(_rows(text, suffix))
            column = image_column(address, list(rows[0][1])) if rows else ""
            named = [(number, str(row[column])) for number, row in rows]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{address}: cannot be read as a list of pictures ({one_line(error)})") from error
    for row, (number, name) in enumerate(named):
        picture = beside(address, name)
        if PurePosixPath(picture).suffix.lower() in (*SHARDS, *LISTS):
            raise DataError(f"{address}: line {number} names {name!r}; expected a picture")
        if is_remote(picture):
            yield Item(picture, 0, picture)
        else:
            yield Item(address, row, picture, file_stamp(Path(picture)), Path(picture))


def _rows(text: str, suffix: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a table or of JSON lines, each with the number of its (last) line."""
    if suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text))
        for row in reader:
            yield reader.line_num, row
    else:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, json.loads(line)
