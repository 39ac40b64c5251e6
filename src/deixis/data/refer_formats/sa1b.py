"""SA-1B (Kirillov et al., arXiv 2304.02643): many masks per image, and no text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import parse_object, read_text
from deixis.data.formats.coco.values import image_size, mask_rle, whole_number
from deixis.data.formats.record import Format
from deixis.data.reading import reading, reads, shown
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferSample

_NAME = re.compile(r"sa_(\d+)\.json")


@dataclass(frozen=True)
class Sa1b:
    """Images of SA-1B. Each JSON file is read when its sample is asked for; held are the paths alone.

    Every mask is an expression without sentences: it awaits a caption.
    """

    files: tuple[Path, ...]
    images: Path | None
    name: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> ReferSample:
        """One image and its masks.

        Raises:
            DataError: its JSON file cannot be used.
        """
        file = self.files[index]
        with reading(file, "SA-1B annotations"):
            return _sample(file, self.images)


def find_sa1b(path: Path) -> list[Path]:
    """A file `sa_1.json` of a folder, or of a folder in it, found without listing it whole."""
    return list(islice(_json_files(path), 1)) if path.is_dir() else []


@reads("SA-1B annotations")
def read_sa1b(path: str | Path, images: Path | None = None, max_samples: int | None = None) -> Sa1b:
    """A folder of `sa_1.jpg` with `sa_1.json`, or a folder of such folders.

    Args:
        images: where the pictures are, if not beside the JSON files.
        max_samples: read the first N images only. The listing of the folder ends there, and no file is opened, so
            start-up time and memory do not grow with SA-1B. Which images they are is up to the file system.

    Raises:
        DataError: no such file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of SA-1B's images and JSON files")
    # Sorted after the first N are taken: to sort them all, all would have to be listed.
    files = sorted(islice(_json_files(folder), max_samples), key=lambda file: (_number(file), str(file)))
    if not files:
        raise DataError(f"{folder}: no sa_1.json, sa_2.json … in it or in its folders; give the folder of SA-1B")
    return Sa1b(tuple(files), images, folder.resolve().name)


def _sample(file: Path, images: Path | None) -> ReferSample:
    content = parse_object(read_text(file), str(file))
    image, annotations = content.get("image"), content.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise DataError(f"{file}: has no 'image' and 'annotations' as SA-1B's files do; get it again")
    try:
        size_hw = image_size(image.get("height"), image.get("width"))
    except ValueError as error:
        raise DataError(f"{file}: the image has no height and width to use ({error}); get the file again") from error
    name = image.get("file_name") or f"{file.stem}.jpg"
    if not isinstance(name, str):
        raise DataError(f"{file}: file_name must be text, got {shown(name)}; get the file again")
    expressions = tuple(_expression(row, number, size_hw, file) for number, row in enumerate(annotations, 1))
    return ReferSample((images or file.parent) / name, size_hw, expressions, _number(file), file.name)


def _json_files(folder: Path, nested: bool = True) -> Iterator[Path]:
    """The files of a folder as the file system lists them, then those of its folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                yield Path(entry.path)
            elif nested and entry.is_dir():
                folders.append(Path(entry.path))
    for inner in sorted(folders):
        yield from _json_files(inner, nested=False)


def _number(file: Path) -> int:
    match = _NAME.fullmatch(file.name)
    return (whole_number(match[1]) if match else None) or 0


def _expression(row: Any, number: int, size_hw: tuple[int, int], file: Path) -> Expression:
    where = f"{file}: annotation {number}"
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with a segmentation, got {shown(row)}; get the file again")
    try:
        mask = mask_rle(row.get("segmentation"), size_hw)
    except ValueError as error:
        raise DataError(f"{where}: segmentation {error}; get the file again") from error
    if mask is None:
        raise DataError(f"{where}: has no segmentation; get the file again")
    identity = whole_number(row.get("id", number))
    if identity is None:
        raise DataError(f"{where}: id must be a whole number, got {shown(row.get('id'))}; get the file again")
    return Expression((), (mask,), expression_id=identity)


SA1B = Format("sa1b", find_sa1b, read_sa1b, takes=("max_samples",), decisive=True)
