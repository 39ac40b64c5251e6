"""YOLO label files that are described by Darknet's `obj.data`, or by nothing but a list of class names.

Darknet and CVAT (YOLO 1.1) write `obj.data`, which names the list of names and the lists of pictures. LabelImg and
Label Studio write `classes.txt` beside the label files; Label Studio's `notes.json` has the names too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import (
    ImageIndex,
    parse_object,
    read_text,
    require_no_missing,
    same_split,
    the_file,
)
from deixis.data.formats.find_images import resolve_image
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.yolo.labels import LabelFiles, is_label_file
from deixis.data.formats.yolo.layout import SPLITS, YoloLayout
from deixis.data.formats.yolo.read import labelled_samples
from deixis.data.formats.yolo.write import label_lines
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError
from deixis.records import Dataset, SampleList

_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt", "names.txt", "class_names.txt", "notes.json")
# Keys of `obj.data` that name no pictures.
_NO_SPLITS = {"names", "backup", "classes", "eval", "results", "top", "labels", "map", "difficult"}
_PICTURES = ("images", "imgs", "img")
_PROBED_FILES = 200
_MAX_BYTES = 1 << 20  # of a file of settings or names
_PREFIX = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio's, before the name of an uploaded file


def find_darknet(path: Path) -> list[Path]:
    """Darknet's settings in a folder, else its list of class names where label files are around it; or such a file."""
    if path.is_dir():
        settings = [file for file in sorted(path.glob("*.data")) if not is_left_by_macos(file) and _settings(file)]
        if not settings and any(file.exists() and not file.is_file() for file in path.glob("obj.data")):
            return []  # a pipe or a device, which is not opened; the splits that it would list are unknown
        return settings or [file for file in _lists(path) if _has_labels(file)][:1]
    if path.suffix.lower() == ".data":
        return [path] if _settings(path) else []
    return [path] if path in _lists(path.parent) and _has_labels(path) else []


def _lists(folder: Path) -> list[Path]:
    """The lists of class names in a folder or its `labels`, in any case, likeliest first."""
    files = [file for place in (folder, folder / "labels") if place.is_dir() for file in sorted(place.iterdir())]
    known = [file for file in files if file.name.lower() in _LISTS and file.is_file()]
    return sorted(known, key=lambda file: _LISTS.index(file.name.lower()))


@reads("YOLO annotations of Darknet")
def read_darknet(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """A data set by its `obj.data`, by its list of class names, or by the folder of one of these.

    A picture without a label file, or with an empty one, has no objects. Without `obj.data`, pictures are in `images`
    or beside the list, labels in `labels` or beside the pictures.

    Args:
        images: the folder of images, where the labels come without them.
        split: train, val or test; may be left out where there is one.

    Raises:
        DataError: no list of names, a missing picture, no label file at all, or a line that is neither box nor polygon.
    """
    file = the_file(path, find_darknet, "obj.data or classes.txt")
    layout = _layout_of_settings(file) if file.suffix.lower() == ".data" else _layout_of_list(file)
    if images is not None:
        pairs = _elsewhere(layout, images, split)
    else:
        files = layout.images_of(split)
        labels_of = LabelFiles(files)
        pairs = [(image, labels_of.of(image)) for image in files]
        if file.suffix.lower() != ".data" and not any(labels.is_file() for _, labels in pairs):
            pairs = _elsewhere(layout, layout.root, split)  # pictures and labels in folders of other names
        else:
            labels_of.warn(file)
    if not any(labels.is_file() for _, labels in pairs):
        raise DataError(f"{file}: none of {len(pairs)} images has a label file; the first would be {pairs[0][1]}")
    return labelled_samples(layout, pairs, masks, findings)


def _settings(file: Path) -> dict[str, str]:
    """The pairs `key = value` of Darknet's file; none where it is another file."""
    try:
        require_regular(file)
        if file.stat().st_size > _MAX_BYTES:
            return {}
        pairs = [line.partition("=") for line in read_text(file).splitlines() if "=" in line]
    except (OSError, DataError):
        return {}
    found = {key.strip(): value.strip() for key, _, value in pairs}
    return found if "names" in found else {}


def _layout_of_settings(file: Path) -> YoloLayout:
    found = _settings(file)
    if not found:
        raise DataError(f"{file}: has no line 'names = …', which Darknet's settings need; give the right file")
    splits: dict[str, tuple[str, ...]] = {
        same_split(key): (_list_or_folder(file, key, value),)
        for key, value in found.items()
        if value and key.lower() not in _NO_SPLITS
    }
    if not splits:
        raise DataError(f"{file}: has no line 'train = …'; add where the list of images is")
    # Without names at first, as the layout knows how to find their file.
    layout = YoloLayout(file, (), splits, False, file.parent)
    return YoloLayout(file, _names(layout.place(found["names"])), splits, False, file.parent)


def _list_or_folder(file: Path, key: str, value: str) -> str:
    """Where the pictures of a split are: its list or, where an export lacks that, CVAT's folder of its name."""
    folder = f"obj_{key}_data"
    lists = (file.parent / value.replace("\\", "/"), file.parent / Path(value.replace("\\", "/")).name)
    return folder if (file.parent / folder).is_dir() and not any(place.is_file() for place in lists) else value


def _layout_of_list(file: Path) -> YoloLayout:
    home = file.parent.parent if file.parent.name == "labels" else file.parent
    root = next((home / name for name in _PICTURES if (home / name).is_dir()), home)
    parts: dict[str, tuple[str, ...]] = {
        same_split(name): (name,) for name in (*SPLITS, "valid") if (root / name).is_dir()
    }
    return YoloLayout(file, _names(file), parts or {"train": (".",)}, False, root)


def _names(file: Path) -> tuple[str, ...]:
    if file.suffix.lower() == ".json":
        return _noted_names(file)
    lines = [line.strip() for line in read_text(file).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    # A blank line between two names would shift the numbers of all that follow.
    if not lines or not all(lines):
        raise DataError(f"{file}: expected one class name per line, got {'a blank line' if lines else 'no line'}")
    return tuple(lines)


def _noted_names(file: Path) -> tuple[str, ...]:
    """The names of Label Studio's `notes.json`, by their ids."""
    rows = parse_object(read_text(file), str(file)).get("categories")
    named = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = {row.get("id"): row.get("name") for row in named}
    if not names or set(names) != set(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{file}: has no categories with ids from 0 on and names; put the names in classes.txt")
    return tuple(str(names[number]) for number in range(len(names)))


def _elsewhere(layout: YoloLayout, images: Path, split: str | None) -> list[tuple[Path, Path]]:
    """Pictures of another folder with their label files, which are where the pictures would be."""
    if layout.file.suffix.lower() == ".data":
        wanted = "train" if split is None and len(layout.splits) == 1 else same_split(split or "")
        if wanted not in layout.splits:
            raise DataError(f"{layout.file}: has the splits {', '.join(layout.splits)}; name one of them")
        lines = read_text(layout.place(layout.splits[wanted][0])).splitlines()
        names = [line.strip() for line in lines if line.strip()]
        found = [(resolve_image(images, name), _labels(layout.file.parent, name)) for name in names]
    else:
        index = ImageIndex([images])
        files = list(_label_files(layout.file))
        names = [file.stem for file in files]
        found = [(_by_stem(index, file.stem), file) for file in files]
    missing = [name for name, (image, _) in zip(names, found, strict=True) if image is None]
    require_no_missing(str(layout.file), missing, len(names), [images])
    if not found:
        raise DataError(f"{layout.file}: has no label files and lists no images; there is nothing to read")
    return [(image, labels) for image, labels in found if image is not None]


def _labels(home: Path, name: str) -> Path:
    text = str(Path(name.replace("\\", "/")).with_suffix(".txt"))
    return resolve_image(home, text) or home / text


def _by_stem(index: ImageIndex, stem: str) -> Path | None:
    """The picture of a label file; also without the letters that Label Studio adds to uploaded files."""
    added = _PREFIX.fullmatch(stem)
    return index.find("", stem) or (index.find("", added[1]) if added is not None else None)


def _has_labels(file: Path) -> bool:
    return any(is_label_file(one) for one in islice(_label_files(file), _PROBED_FILES))


def _label_files(file: Path) -> Iterator[Path]:
    """The text files in `labels` and its folders, else beside the list of names or the pictures."""
    home = file.parent.parent if file.parent.name == "labels" else file.parent
    inside = home / "labels"
    places = [inside, *(inside / name for name in (*SPLITS, "valid"))]
    if not inside.is_dir():
        places = [home, *(child for child in islice(sorted(home.iterdir()), _PROBED_FILES) if child.is_dir())]
    for place in places:
        for one in sorted(place.glob("*.txt")):
            if one.name.lower() not in _LISTS and not is_left_by_macos(one):
                yield one


def write_darknet(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`obj.data`, `obj.names`, and for each part `train.txt` and `obj_train_data/`. Crowds are left out.

    Returns:
        `obj.data`, for `read_darknet`.
    """
    del masks  # Darknet has boxes only
    with new_folder(folder) as draft:
        names = next(iter(parts.values())).vocabulary.names
        settings = [f"classes = {len(names)}"]
        for part, dataset in parts.items():
            key = "valid" if part == "val" else part
            place = f"obj_{key}_data"
            lines = []
            for sample, name in placed(dataset, draft / place, images):
                text = "".join(f"{line}\n" for line in label_lines(sample, masks=False))
                (draft / place / name).with_suffix(".txt").write_text(text, encoding="utf-8")
                lines.append(f"data/{place}/{name}\n")  # as in CVAT's exports, whose archives have no folder `data`
            (draft / f"{key}.txt").write_text("".join(lines), encoding="utf-8")
            settings.append(f"{key} = data/{key}.txt")
        settings += ["names = data/obj.names", "backup = backup/"]
        (draft / "obj.data").write_text("".join(f"{line}\n" for line in settings), encoding="utf-8")
        (draft / "obj.names").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder / "obj.data"


DARKNET = Format(
    "darknet",
    find_darknet,
    read_darknet,
    takes=("masks", "split", "findings"),
    write_parts=write_darknet,
    holds=Holds(),
    yields_to=("yolo", "coco", "csv"),
)
