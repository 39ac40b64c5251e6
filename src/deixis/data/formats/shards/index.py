"""The index of a folder of shards: where each picture lies and what is annotated in it, mapped from disk.

`shards.json` lists the files with sizes and SHA-256. `index/images.bin` has one row per image and one more, in which
the last one ends; `index/objects.bin` one row per object; `index/details.bin` a JSON object per image with its name and
what few images have. Nothing of it stays in memory, and a picture is one read at a known place of its shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
from jaxtyping import Float, Int

from deixis.data.reading import reading, require_regular, shown
from deixis.errors import DataError
from deixis.records import Instances, Sample, Vocabulary

MANIFEST, VERSION = "shards.json", 1
IMAGE = np.dtype(
    [
        *(("shard", "<i4"), ("height", "<i4"), ("width", "<i4"), ("crc32", "<u4")),
        *(("offset", "<i8"), ("bytes", "<i8"), ("image_id", "<i8")),
        *(("object", "<i8"), ("detail", "<i8")),  # the first of the image's in the other two files
    ]
)
OBJECT = np.dtype([("box_xyxy_px", "<f8", (4,)), ("area_px", "<f8"), ("class_id", "<i4"), ("crowd", "?")])
DETAIL = np.dtype("u1")
TABLES = {"images": IMAGE, "objects": OBJECT, "details": DETAIL}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardFile:
    """A file of the folder as `shards.json` lists it; `images` is 0 for files of the index."""

    file: str
    bytes: int
    sha256: str
    images: int = 0

    @staticmethod
    def of(folder: Path, file: str, images: int = 0) -> ShardFile:
        """A file that is written."""
        return ShardFile(file, (folder / file).stat().st_size, sha256_of(folder / file), images)


@dataclass(frozen=True)
class Manifest:
    """The content of `shards.json`."""

    container: str
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    shards: tuple[ShardFile, ...]
    index: tuple[ShardFile, ...]

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"deixis_shards": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)

    @staticmethod
    def read(path: Path) -> Manifest:
        """A file that `text` was written to.

        Raises:
            DataError: it is none, or lists files outside its folder.
        """
        require_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("deixis_shards") if isinstance(content, dict) else None
        if version != VERSION:
            raise DataError(f"{path}: deixis_shards is {shown(version)}, expected {VERSION}; write the shards again")
        shards, index = (tuple(_listed(path, entry) for entry in content[key]) for key in ("shards", "index"))
        if not shards:
            raise DataError(f"{path}: lists no shard; write the shards again")
        names = tuple(str(name) for name in content["names"])
        return Manifest(str(content["container"]), names, tuple(map(int, content["category_ids"])), shards, index)


def _listed(path: Path, entry: Any) -> ShardFile:
    found = ShardFile(str(entry["file"]), int(entry["bytes"]), str(entry["sha256"]), int(entry["images"]))
    place = PurePosixPath(found.file.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in found.file or min(found.bytes, found.images) < 0:
        raise DataError(f"{path}: lists {shown(found.file)}, which is no file of this folder; write the shards again")
    return found


class ShardIndex(Sequence[Sample]):
    """The samples of a folder of shards without their pixels, each made when it is asked for.

    Args:
        folder: with `shards.json`.

    Raises:
        DataError: a file is missing or has another size than listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder / MANIFEST)
        self.vocabulary = Vocabulary(self.manifest.names, self.manifest.category_ids)
        for listed in (*self.manifest.shards, *self.manifest.index):
            _require_size(folder / listed.file, listed.bytes)
        self.shard_sizes = np.array([shard.images for shard in self.manifest.shards], np.int64)
        self._count = int(self.shard_sizes.sum())
        rows = len(self._tables["images"]) - 1
        if rows != self._count or not rows:
            raise DataError(f"{folder / MANIFEST}: lists {self._count} images, its index {rows}; write it again")

    def __getstate__(self) -> dict[str, Any]:  # a memory map would be sent to loading workers as a copy of its content
        return {key: value for key, value in vars(self).items() if key != "_tables"}

    @cached_property
    def _tables(self) -> dict[str, Any]:
        files = {PurePosixPath(one.file).stem: one for one in self.manifest.index}
        return {name: _mapped(self.folder / files[name].file, kind) for name, kind in TABLES.items()}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, after = self.row(index), self._tables["images"][range(len(self))[index] + 1]
        where = f"{self.file_of(row)}: image {range(len(self))[index] + 1}"
        with reading(where):
            objects = self._tables["objects"][_part(row, after, "object")]
            details = json.loads(bytes(self._tables["details"][_part(row, after, "detail")]))
            absent = details.get("absent")
            return Sample(
                image=Path(details["name"]),
                size_hw=(int(row["height"]), int(row["width"])),
                instances=Instances.build(
                    objects["box_xyxy_px"], objects["class_id"], objects["crowd"], areas_px=objects["area_px"]
                ),
                vocabulary=self.vocabulary,
                image_id=int(row["image_id"]),
                source=f"{where} ({details['name']})",
                absent_class_ids=None if absent is None else frozenset(absent),
                not_exhaustive_class_ids=frozenset(details.get("not_exhaustive", ())),
            )

    def row(self, index: int) -> np.void:
        """Where an image lies; a record of `IMAGE`.

        Raises:
            DataError: the row points to no shard.
        """
        row: np.void = self._tables["images"][range(len(self))[index]]
        if not 0 <= row["shard"] < len(self.manifest.shards):
            raise DataError(f"{self.folder}: row {index} of the index names shard {row['shard']}; write it again")
        return row

    def file_of(self, row: np.void) -> Path:
        """The shard of a row."""
        return self.folder / self.manifest.shards[int(row["shard"])].file

    @property
    def digest(self) -> str:
        """A text that is the same for the same content."""
        return hashlib.sha256(self.manifest.text().encode()).hexdigest()


class ShardRatios:
    """Width over height of the images of an index, as far as they are asked for: `ratios[positions]`."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, positions: Int[np.ndarray, " n"] | list[int]) -> Float[np.ndarray, " n"]:
        rows = self.index._tables["images"][np.asarray(positions)]
        ratios: np.ndarray = rows["width"] / np.maximum(rows["height"], 1)
        return ratios.astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return self[np.arange(len(self))].astype(dtype or np.float32)


def sha256_of(path: Path) -> str:
    """Of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(row: np.void, after: np.void, key: str) -> slice:
    first, end = int(row[key]), int(after[key])
    if not 0 <= first <= end:
        raise ValueError(f"rows {first} to {end} of {key}s")
    return slice(first, end)


def _require_size(path: Path, wanted: int) -> None:
    require_regular(path)
    if not path.is_file():
        raise DataError(f"{path}: this shard is missing; copy it again, or write the shards again")
    if (found := path.stat().st_size) != wanted:
        raise DataError(
            f"{path}: has {found} bytes, {MANIFEST} lists {wanted}: it is incomplete or of another set; copy it again"
        )


def _mapped(path: Path, kind: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    if size % kind.itemsize:
        raise DataError(f"{path}: {size} bytes are no whole number of rows; write the shards again")
    return np.memmap(path, kind, "r") if size else np.zeros(0, kind)
