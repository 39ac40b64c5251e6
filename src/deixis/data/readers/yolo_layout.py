"""Where a YOLO data set keeps its pictures and labels: `data.yaml`, its splits, `images` beside `labels`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data.images import IMAGE_SUFFIXES
from deixis.data.readers.files import read_text
from deixis.data.yaml_text import parse_yaml
from deixis.errors import DataError

SPLITS = ("train", "val", "test")
_SAME_SPLIT = {"valid": "val", "validation": "val"}


@dataclass(frozen=True)
class YoloLayout:
    """What a `data.yaml` says. `keypoints` is true where label lines go on with keypoints after the box."""

    file: Path
    names: tuple[str, ...]
    splits: dict[str, list[Path]]
    keypoints: bool

    def images_of(self, split: str | None) -> list[Path]:
        """The pictures of a split; of the only one where none is named.

        Raises:
            DataError: a split that is not there, several and none named, or no picture.
        """
        split = _SAME_SPLIT.get(split or "", split)
        seen = ", ".join(self.splits)
        if split is None and len(self.splits) != 1:
            raise DataError(
                f"{self.file}: has the splits {seen}; name one, as in {self.file}#{next(iter(self.splits))}"
            )
        split = split or next(iter(self.splits))
        if split not in self.splits:
            raise DataError(f"{self.file}: has no split {split!r}, only {seen}")
        images = [image for place in self.splits[split] for image in _images_in(place)]
        if not images:
            places = ", ".join(map(str, self.splits[split]))
            raise DataError(f"{self.file}: no image for its split {split!r}; looked in {places}; correct the path")
        return images


def read_layout(file: Path) -> YoloLayout:
    """Read a `data.yaml`.

    Paths are relative to `path`, which is relative to the file; `../train/images` (Roboflow writes it for a folder
    beside the file) is looked for without the `../` too.

    Raises:
        DataError: no YAML mapping, no usable `names`, a count `nc` that differs, or no split.
    """
    content = parse_yaml(read_text(file), str(file))
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds a {type(content).__name__}, not YOLO's names and train, val, test")
    names = _names(content, file)
    root = _root(content.get("path"), file)
    splits = {}
    for key in SPLITS:
        value = content.get(key)
        places = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(place, str) and place for place in places):
            raise DataError(f"{file}: {key} must be a path or a list of paths, got {value!r}")
        if value:
            splits[key] = [_place(root, file.parent, str(place)) for place in places]
    if not splits:
        raise DataError(f"{file}: has no train, val or test; say where the images are, as in 'train: images/train'")
    return YoloLayout(file, names, splits, "kpt_shape" in content)


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
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{file}: names must be a list, or a mapping numbered from 0, of class names, got {names!r}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise DataError(f"{file}: nc is {count!r} but names has {len(names)}; correct one of them")
    return tuple(str(name) for name in names)


def _root(value: Any, file: Path) -> Path:
    if value is None:
        return file.parent
    if not isinstance(value, str):
        raise DataError(f"{file}: path must be a folder, got {value!r}")
    root = file.parent / value  # an absolute value stands for itself
    return root if root.is_dir() else file.parent


def _place(root: Path, home: Path, text: str) -> Path:
    text = text.replace("\\", "/")
    for candidate in (root / text, home / text, root / text.removeprefix("../"), home / text.removeprefix("../")):
        if candidate.exists():
            return candidate
    raise DataError(f"{home}: no file or folder {text!r}, which the YOLO file there names; correct its paths")


def _images_in(place: Path) -> list[Path]:
    """The pictures of a folder and of its folders, or those that a text file lists, relative to the file."""
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    missing = [line for line in lines if not (place.parent / line).is_file()]
    if missing:
        raise DataError(f"{place}: {len(missing)} of {len(lines)} images not found, the first is {missing[0]!r}")
    return [place.parent / line for line in lines]
