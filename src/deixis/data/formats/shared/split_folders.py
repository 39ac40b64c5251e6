"""Sets whose splits are folders: train, valid and test, each with a file of annotations and its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from deixis.data.formats.annotation_files import only_file, same_split
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import require_regular
from deixis.errors import DataError, NoSuchSplitError

_HEAD_CHARS = 20_000
SPLIT_FOLDERS = ("train", "valid", "val", "validation", "test")


def head_of(file: Path) -> str:
    """The beginning of a text file, to recognise it; empty where it cannot be read."""
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig", errors="replace") as text:
            return text.read(_HEAD_CHARS)
    except (OSError, DataError):
        return ""


def split_files(folder: Path, ending: str, is_one: Callable[[Path], bool]) -> list[Path]:
    """The files of a format in a folder; else those in its folders train, val(id) and test, one in each."""
    files = [file for file in sorted(folder.glob(f"*.{ending}")) if not is_left_by_macos(file) and is_one(file)]
    if files:
        return files
    found = []
    for split in SPLIT_FOLDERS:
        if (folder / split).is_dir():
            found += [file for file in sorted((folder / split).glob(f"*.{ending}")) if is_one(file)][:1]
    return found


def by_splits(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Files by split: that of their folder, as in train/a.csv, or one of the words of their names, as train_labels.csv.

    Empty where some file says none, or two say the same, or a single one lies in the folder itself.
    """
    found: dict[str, Path] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.stem.lower()) if len(files) > 1 else []
        words = words if file.parent == folder else [file.parent.name]
        said = next((word for word in words if word in SPLIT_FOLDERS), None)
        if said is None or same_split(said) in found:
            return {}
        found[same_split(said)] = file
    return found


def split_file(path: Path, split: str | None, find: Callable[[Path], list[Path]]) -> Path:
    """The file to read of a folder that has one, or one for each of the splits train, val(id) and test.

    Raises:
        DataError: there is none or there are several, a split that is not there, or none named where there are some.
    """
    if not path.is_dir():
        if split is not None:
            raise NoSuchSplitError(f"{path}: is one file, with no split {split!r}; give the folder of the splits")
        return path
    files = find(path)
    by_split = by_splits(path, files)
    if not by_split:
        if split is not None:
            raise NoSuchSplitError(f"{path}: has no folder of the split {split!r}; give the file itself")
        return only_file(files, path, "file of annotations")
    if split is None and len(by_split) > 1:
        raise DataError(f"{path}: has the splits {', '.join(by_split)}; name one, as in {path}#{next(iter(by_split))}")
    chosen = same_split(split or next(iter(by_split)))
    if chosen not in by_split:
        raise NoSuchSplitError(f"{path}: has no split {split!r}, only {', '.join(by_split)}")
    return by_split[chosen]
