"""COCO's content without the rows that the reader would refuse, each reported as a finding."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.data.findings import Findings, image_loss
from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.find_images import Located
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError
from deixis.records import size_fault

Row = dict[str, Any]
Lists = dict[str, list[Row]]


def sieve(path: Path, content: Mapping[str, Any], find_images: Callable[..., Located], findings: Findings) -> Lists:
    """The usable rows of `images`, `categories` and `annotations`.

    Annotations of a row that is left out go with it and are counted in its finding. Whether an annotation itself is
    sound is left to the reader.

    Args:
        content: as the JSON file has it, known to hold the three lists.
        find_images: from rows with a file name to what became of the names.
    """
    lists = {key: _objects(path, key, content[key], findings) for key in ("images", "categories", "annotations")}
    used = {_hashable(row, "category_id") for row in lists["annotations"]}
    categories, merged, lost_categories = _categories(path, lists["categories"], used, findings)
    images, lost_images = _images(path, lists["images"], lists["annotations"], find_images, findings)
    annotations = [
        row | {"category_id": merged[row["category_id"]]} if _hashable(row, "category_id") in merged else row
        for row in lists["annotations"]
        if _hashable(row, "image_id") not in lost_images and _hashable(row, "category_id") not in lost_categories
    ]
    _annotation_ids(path, annotations, findings)
    return {"images": images, "categories": categories, "annotations": annotations}


def _objects(path: Path, key: str, rows: Sequence[Any], findings: Findings) -> list[Row]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            text = f"is {str(row)[:60]!r}, not an object"
            findings.add("record_malformed", path, f"{key} number {number}", text, "record removed")
    return [row for row in rows if isinstance(row, dict)]


def _categories(
    path: Path, rows: list[Row], used: set[Any], findings: Findings
) -> tuple[list[Row], dict[Any, Any], set[Any]]:
    """(usable rows, ids to the id they are merged into, ids left out).

    An unused category that repeats a used one's name is left to the reader, which leaves it out with a warning.
    """
    kept: list[Row] = []
    merged: dict[Any, Any] = {}
    lost: set[Any] = set()
    by_id: dict[Any, str] = {}
    by_name: dict[str, Any] = {}
    for number, row in enumerate(rows, start=1):
        place = f"category {row.get('id', f'number {number}')}"
        key, name = row.get("id"), row.get("name")
        if not _is_id(key):
            findings.add("record_malformed", path, place, f"has no usable id, got {key!r}", "category removed")
        elif not isinstance(name, str) or not name.strip():
            findings.add("record_malformed", path, place, f"has no name, got {name!r}", "category and objects removed")
            lost.add(key)
        elif key in by_id:
            text = f"is {by_id[key]!r} and {name!r}; its objects are taken for the first"
            findings.add("id_repeated", path, place, text, "second category removed")
        elif name.strip() in by_name and {key, by_name[name.strip()]} <= used:
            text = f"is named {name.strip()!r}, as category {by_name[name.strip()]} is"
            findings.add("name_repeated", path, place, text, "merged into the first")
            merged[key] = by_name[name.strip()]
        else:
            kept.append(row)
            by_id[key], by_name[name.strip()] = name, key
    # An id that a sound category has as well is not lost.
    return kept, merged, lost - set(by_id)


def _images(
    path: Path, rows: list[Row], annotations: list[Row], find_images: Callable[..., Located], findings: Findings
) -> tuple[list[Row], set[Any]]:
    """(usable rows, ids left out)."""
    objects = Counter(_hashable(row, "image_id") for row in annotations)
    usable, lost = _identified(path, rows, objects, findings)
    kept = []
    located = find_images(usable)
    for position, (row, file) in enumerate(zip(usable, located.files, strict=True)):
        place, loss = f"image {row['id']}", image_loss(objects[row["id"]])
        if position in located.faults:
            findings.add("image_misplaced", row["file_name"], f"{path.name}: {place}", located.faults[position])
        elif file is None:
            findings.add("image_missing", row["file_name"], f"{path.name}: {place}", "is not there", loss)
        elif (sized := _sized(path, row, file, loss, findings)) is not None:
            kept.append(sized)
            continue
        lost.add(row["id"])
    return kept, lost


def _identified(
    path: Path, rows: list[Row], objects: Mapping[Any, int], findings: Findings
) -> tuple[list[Row], set[Any]]:
    """Rows with a file name and an id of their own; of the same image twice, the first."""
    lost: set[Any] = set()
    by_id: dict[Any, list[Row]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        name = row.get("file_name")
        place = f"image {row.get('id', f'number {number}')}"
        if not _is_id(row.get("id")):
            text = f"has no usable id, got {row.get('id')!r}"
            findings.add("record_malformed", path, place, text, "image removed")
        elif not isinstance(name, str) or not name:
            text = f"has no file_name, got {name!r}"
            findings.add("record_malformed", path, place, text, image_loss(objects[row["id"]]))
            lost.add(row["id"])
        else:
            by_id[row["id"]].append(row)
            findings.listed.add(PurePosixPath(name.replace("\\", "/")).stem)
    for key, group in by_id.items():
        names = list(dict.fromkeys(row["file_name"] for row in group))
        if len(names) > 1:
            text = f"is the id of {', '.join(names)}; it is not clear whose its objects are"
            findings.add("id_repeated", path, f"image {key}", text, f"images and {objects[key]} objects removed")
            lost.add(key)
        elif len(group) > 1:
            text = f"occurs {len(group)} times, each for {names[0]}"
            findings.add("id_repeated", path, f"image {key}", text, "repetition removed")
    return [group[0] for key, group in by_id.items() if key not in lost], lost


def _sized(path: Path, row: Row, file: Path, loss: str, findings: Findings) -> Row | None:
    """The row with a usable size, or with none where its file can give it."""
    height, width = row.get("height"), row.get("width")
    if size_fault((finite_number(height) or 0.0, finite_number(width) or 0.0)) is None:
        return row
    try:
        image_sizes_hw(file)
    except DataError as error:
        findings.add("image_unreadable", file, f"{path.name}: image {row['id']}", _without(error, file), loss)
        return None
    if height is not None or width is not None:
        text = f"has height {height!r} and width {width!r}, not two positive numbers"
        findings.add("record_malformed", path, f"image {row['id']}", text, "size taken from the file")
    return row | {"height": None, "width": None}


def _annotation_ids(path: Path, rows: list[Row], findings: Findings) -> None:
    ids = Counter(row["id"] for row in rows if _is_id(row.get("id")))
    for key, count in ids.items():
        if count > 1:
            text = f"{count} annotations have this id; pycocotools keeps one of them"
            findings.add("annotation_id_repeated", path, f"annotation {key}", text, "annotations numbered anew")


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _hashable(row: Row, key: str) -> Any:
    return row[key] if isinstance(row.get(key), int | str) else None


def _without(error: DataError, file: Path) -> str:
    return str(error).removeprefix(f"{file}: ").split(";")[0]
