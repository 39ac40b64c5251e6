"""`predictions.json` of `deixis detect predict`: one entry per image, with file, size and objects with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text, parse_json, read_text
from deixis.data.formats.coco.values import finite_number, image_size, whole_number
from deixis.data.formats.record import Format
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, find_pictures
from deixis.data.reading import reads, shown
from deixis.errors import DataError
from deixis.records import SampleList

FILE = "predictions.json"


def find_predictions(path: Path) -> list[Path]:
    """The `predictions.json` of a folder; a file itself, or, of COCO results, the one beside them."""
    if path.is_dir():
        return [path / FILE] if _is_predictions(path / FILE) else []
    if path.suffix.lower() != ".json":
        return []
    if _is_predictions(path):
        return [path]
    beside = path.with_name(FILE)
    are_results = holds_text(path, '"score"') and holds_text(path, '"category_id"') and not holds_text(path, '"images"')
    return [beside] if are_results and _is_predictions(beside) else []


def _is_predictions(file: Path) -> bool:
    return file.is_file() and holds_text(file, '"box_xyxy_px"') and not holds_text(file, '"images"')


@reads("predictions")
def read_predictions(path: str | Path, images: Path | None = None, findings: Findings | None = None) -> SampleList:
    """The detections of a `predictions.json`, with their scores and the model that made them.

    Image files are where they were predicted on, seen from here; else beside the file, or in `images`. Classes are the
    names that were found, sorted.

    Args:
        path: the file, its folder, or the `coco_results.json` beside it, which has no names.

    Raises:
        DataError: malformed JSON, an entry that is none, missing images, or no detection at all.
    """
    path = Path(path)
    file = next(iter(find_predictions(path)), path / FILE if path.is_dir() else path)
    entries = parse_json(read_text(file), str(file))
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected a list of images with their objects, got {shown(entries)}")
    found: list[tuple[str, int | None, Picture]] = []
    for number, entry in enumerate(entries, start=1):
        place = f"image {number}"
        with collecting(findings, "record_malformed", file, place, "image removed"):
            found.append(_entry(entry, f"{file}: {place}", f"{file.name}: {place}"))
    if not found:
        raise DataError(f"{file}: lists no image; there is nothing to convert or train on")
    names = [name for name, _, _ in found]
    folders = [Path(), file.parent, file.parent.parent]
    files = find_pictures(file, names, images, folders, findings)
    there = [(one[1], replace(one[2], image=image)) for one, image in zip(found, files, strict=True) if image]
    dataset = assemble(file, [picture for _, picture in there], None, file.parent.resolve().name, findings)
    ids = [given for given, _ in there]
    if None not in ids and len(set(ids)) == len(ids):
        numbered = [one.evolve(image_id=given) for one, given in zip(dataset.samples, ids, strict=True)]
        dataset = replace(dataset, samples=tuple(numbered))
    return dataset


def _entry(entry: Any, where: str, source: str) -> tuple[str, int | None, Picture]:
    """An image's file as it was given, its id, and its detections; the file is found later."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("file"), str) or not entry["file"]:
        got = entry.get("file") if isinstance(entry, Mapping) else entry
        raise DataError(f"{where}: expected an image with its file, got {shown(got)}")
    try:
        size_hw = image_size(entry.get("height"), entry.get("width"))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    objects = entry.get("objects", [])
    if not isinstance(objects, Sequence) or isinstance(objects, str):
        raise DataError(f"{where}: expected a list of objects, got {shown(objects)}")
    drawn = tuple(_object(one, f"{where}, object {number}") for number, one in enumerate(objects, start=1))
    model = entry.get("model")
    picture = Picture(Path(), size_hw, drawn, source, model_version=model if isinstance(model, str) else "")
    return entry["file"], whole_number(entry.get("image_id")), picture


def _object(one: Any, where: str) -> AnnotatedObject:
    values = one if isinstance(one, Mapping) else {}
    label, box, score = values.get("label"), values.get("box_xyxy_px"), finite_number(values.get("score"))
    numbers = [finite_number(value) for value in box] if isinstance(box, list) else []
    corners = [number for number in numbers if number is not None]
    if not isinstance(label, str) or not label.strip() or score is None or len(numbers) != 4 or len(corners) != 4:
        raise DataError(f"{where}: expected a label, a score and four finite numbers of a box, got {shown(one)}")
    x1, y1, x2, y2 = corners
    return AnnotatedObject(label, (x1, y1, x2, y2), score=score)


PREDICTIONS = Format("predictions", find_predictions, read_predictions, takes=("findings",))
