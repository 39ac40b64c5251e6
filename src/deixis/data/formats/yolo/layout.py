"""Where a YOLO data set keeps its pictures and labels: `data.yaml`, its splits, `images` beside `labels`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import read_text, same_split
from deixis.data.formats.find_images import resolve_image
from deixis.data.pixels.image_files import is_image_file, unread_pictures
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError, NoSuchSplitError

SPLITS = ("train", "val", "test")
_NOTHING = ("", "~", "null", "Null", "NULL")  # YAML's ways to write nothing


@dataclass(frozen=True)
class YoloLayout:
    """The content of a `data.yaml`.

    Attributes:
        splits: by name, their folders and lists; not looked for before one is asked for.
        keypoints: label lines go on with keypoints after the box.
        root: what their paths are relative to, besides the file's own folder.
    """

    file: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    keypoints: bool
    root: Path

    def images_of(self, split: str | None) -> list[Path]:
        """The pictures of a split; of the only one where none is named.

        Raises:
            DataError: a split that is not there, several and none named, or no picture.
        """
        split = None if split is None else same_split(split)
        # `data.yaml` may name a split that was not exported, as Roboflow does with its test set.
        there = [name for name in self.splits if all(self._find(text) for text in self.splits[name])]
        seen = ", ".join(there or self.splits)
        # One that names the same places is the same images: Ultralytics needs `val` of a single set too.
        if split is None and len({self.splits[name] for name in there}) > 1:
            raise DataError(f"{self.file}: has the splits {seen}; name one, as in {self.file}#{there[0]}")
        split = split or next(iter(there or self.splits))
        if split not in self.splits:
            raise NoSuchSplitError(f"{self.file}: has no split {split!r}, only {seen}")
        return images_in([self.place(text) for text in self.splits[split]], str(self.file), f" for its split {split!r}")

    def place(self, text: str) -> Path:
        """The folder or list that a split names.

        Raises:
            DataError: it is not there.
        """
        found = self._find(text)
        if found is None:
            raise DataError(
                f"{self.file.parent}: no file or folder {text!r}, which the YOLO file there names; correct its paths"
            )
        return found

    def _find(self, text: str) -> Path | None:
        text, home = text.replace("\\", "/"), self.file.parent
        plain = text
        while plain.startswith("../"):
            plain = plain.removeprefix("../")
        for candidate in (self.root / text, home / text, self.root / plain, home / plain):
            if candidate.exists():
                return candidate
        return _without_prefix(self.root, plain) or _without_prefix(home, plain)


def read_layout(file: Path) -> YoloLayout:
    """Read a `data.yaml`.

    Paths are relative to `path`, which is relative to the file; `../train/images` (Roboflow writes it for a folder
    beside the file) is looked for without the `../` too.

    Raises:
        DataError: no YAML mapping, no usable `names`, a count `nc` that differs, or no split.
    """
    content = parse_yaml(read_text(file), str(file), as_text=True)
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds a {type(content).__name__}, not YOLO's names and train, val, test")
    names = _names(content, file)
    root = _root(content.get("path"), file)
    splits: dict[str, tuple[str, ...]] = {}
    for key in (*SPLITS, "valid", "validation"):
        value = content.get(key)
        places = value if isinstance(value, list) else [value]
        if value is None or value in _NOTHING:
            continue
        if not all(isinstance(place, str) and place for place in places):
            raise DataError(f"{file}: {key} must be a path or a list of paths, got {value!r}")
        if value:
            splits.setdefault(same_split(key), tuple(map(str, places)))
    if not splits:
        raise DataError(f"{file}: has no train, val or test; add where the images are, as in 'train: images/train'")
    return YoloLayout(file, names, splits, content.get("kpt_shape") not in (None, *_NOTHING), root)


def label_file(image: Path) -> Path:
    """The text file of an image: the last folder `images` in its path turned `labels`, the suffix `.txt`.

    >>> label_file(Path("data/images/train/a.jpg")).as_posix()
    'data/labels/train/a.txt'
    """
    parts = list(image.parts)
    folders = [position for position, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        by_number = {str(number): name for number, name in names.items()}
        names = [by_number[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: names must be a list, or a mapping numbered from 0, of class names, got {names!r}")
    count = content.get("nc", str(len(names)))
    if str(count).strip() != str(len(names)):
        raise DataError(f"{file}: nc is {count} but names has {len(names)}; correct one of them")
    return tuple(names)


def _root(value: Any, file: Path) -> Path:
    if value is None or value in _NOTHING:
        return file.parent
    if not isinstance(value, str):
        raise DataError(f"{file}: path must be a folder, got {value!r}")
    root = file.parent / value  # an absolute value stands for itself
    return root if root.is_dir() else file.parent


def _without_prefix(folder: Path, text: str) -> Path | None:
    """A path without its first folders, as exporters write those of their own archive; None where none fits.

    A list, or a folder in a folder: `images` alone may be any split's.
    """
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for gone in range(1, len(parts)):
        found = folder.joinpath(*parts[gone:])
        if found.is_file() or (found.is_dir() and gone < len(parts) - 1):
            return found
    return None


def images_in(places: Sequence[Path], where: str, whose: str = "") -> list[Path]:
    """The pictures of folders and of their folders, or those that text files list, relative to the file.

    Pictures of formats that are not read are counted in a warning.

    Raises:
        DataError: a listed one is missing, or there is none.
    """
    images: list[Path] = []
    left: list[Path] = []
    for place in places:
        if place.is_dir():
            files = sorted(place.rglob("*"))
            images += [file for file in files if is_image_file(file)]
            left += [file for file in files if not is_image_file(file)]
        else:
            images += _listed(place)
    line = unread_pictures(left)
    if line:
        warnings.warn(f"{where}: {line}", stacklevel=4)
    if not images:
        raise DataError(
            f"{where}: no image{whose}; looked in {', '.join(map(str, places))}{f' ({line})' if line else ''}; correct "
            "the path, or give their folder with --images"
        )
    return images


def _listed(file: Path) -> list[Path]:
    """The pictures that a text file lists, relative to it; without the first folders where an exporter added them."""
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    found = [resolve_image(file.parent, line) for line in lines]
    missing = [line for line, image in zip(lines, found, strict=True) if image is None]
    if missing:
        raise DataError(f"{file}: {len(missing)} of {len(lines)} images not found, the first is {missing[0]!r}")
    same = len(lines) - len(set(found))
    if same > len(lines) - len(set(lines)):
        raise DataError(f"{file}: some of its {len(lines)} lines are found as one file; correct their folders")
    return [image for image in found if image is not None]
