"""Label Studio's exports JSON and JSON-MIN, and tasks as it imports and stores them."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.label_studio.regions import (
    changed_at,
    find_label_studio,
    labels_of,
    listed_names,
    objects_of,
    tasks_of,
)
from deixis.data.formats.shared.annotated_images import AnnotatedImage, Objects, each_object, samples_of
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.pixels.frames import VIDEO_SUFFIXES
from deixis.data.pixels.image_files import IMAGE_SUFFIXES
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import SampleList
from deixis.text import tallied

_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")  # which Label Studio puts before the names of uploaded files
# JSON-MIN has these beside the values of the task and of its controls, all in one object.
_MIN_FIELDS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


@dataclass
class _Content:
    """What the files hold, as read so far."""

    path: Path
    findings: Findings | None
    masks: bool
    rows: list[AnnotatedImage] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    several: int = 0


@dataclass(frozen=True)
class _Task:
    """A task and the annotation of it that counts: its regions as (value, score)."""

    number: Any
    data: Mapping[str, Any]
    regions: Sequence[Mapping[str, Any]]
    upload: str = ""
    model_version: str = ""


@reads("Label Studio JSON")
def read_label_studio(
    path: str | Path, images: Path | None = None, masks: bool = True, findings: Findings | None = None
) -> SampleList:
    """An export of Label Studio, JSON or JSON-MIN, or a folder of tasks.

    Rectangles, polygons, ellipses and brushes with labels are objects, one for each label; a turned rectangle is the
    mask of its corners. Tasks without an annotation and cancelled annotations do not count; of several annotations of a
    task the one marked as ground truth counts, else the latest. Predictions count only where no task has an annotation,
    and keep their scores. Class names are those of a labelling configuration beside the file, else sorted.

    Args:
        images: the folder of images, where they are elsewhere; `1a2b3c4d-name.jpg` may be there as `name.jpg`.

    Raises:
        DataError: malformed JSON, a region that is none, a task of a video, or a missing image.
    """
    place = Path(path)
    files = find_label_studio(place) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place}: no JSON file of Label Studio in it; give the export")
    content = _Content(files[0], findings, masks)
    _read_tasks([(file, row) for file in files for row in tasks_of(file)], content)
    if not content.rows:
        left = ", ".join(f"{count} {kind}" for kind, count in content.left_out.items()) or "no task"
        raise DataError(
            f"{files[0]}: is Label Studio JSON without an annotated image: {left}; annotate and export again"
        )
    _warn(content)
    return samples_of(files[0], content.rows, listed_names(files[0].parent), images=images, findings=findings)


def _read_tasks(rows: Sequence[tuple[Path, Mapping[str, Any]]], content: _Content) -> None:
    full = [(file, row) for file, row in rows if isinstance(row.get("data"), dict)]
    predicted = not any(_annotations(row) for _, row in full)
    for number, (file, row) in enumerate(full, start=1):
        with collecting(content.findings, "record_malformed", file, f"task {row.get('id', number)}", "image removed"):
            task = _task(row, number, predicted, content)
            if task is not None:
                _add_images(task, content)
    latest: dict[Any, tuple[str, int]] = {}
    short = [row for _, row in rows if not isinstance(row.get("data"), dict)]
    for position, row in enumerate(short):
        key = str(row.get("id", f"row {position}"))
        when = changed_at(row), position
        content.several += key in latest
        latest[key] = max(latest.get(key, when), when)
    for position in sorted(position for _, position in latest.values()):
        row = short[position]
        place = f"task {row.get('id', position + 1)}"
        with collecting(content.findings, "record_malformed", content.path, place, "image removed"):
            # JSON-MIN names regions after the controls of the project: any list of objects is taken for them.
            values = [
                one for value in row.values() if isinstance(value, list) for one in value if isinstance(one, dict)
            ]
            plain = {key: value for key, value in row.items() if key not in _MIN_FIELDS}
            _add_images(_Task(row.get("id", position + 1), plain, [{"value": value} for value in values]), content)


def _annotations(row: Mapping[str, Any]) -> list[Any]:
    found = row.get("annotations", row.get("completions"))
    return found if isinstance(found, list) else []


def _task(row: Mapping[str, Any], number: int, predicted: bool, content: _Content) -> _Task | None:
    """A task with the annotation that counts; None where none does."""
    found = row.get("predictions") if predicted else _annotations(row)
    given = [one for one in (found or []) if isinstance(one, dict)]
    done = [one for one in given if not (one.get("was_cancelled") or one.get("skipped"))]
    if not done:
        content.left_out["tasks that were cancelled" if given else "tasks without an annotation"] += 1
        return None
    content.several += len(done) > 1
    chosen = max(done, key=lambda one: (bool(one.get("ground_truth")), changed_at(one)))
    result = chosen.get("result") or []
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        raise DataError(f"{content.path}: task {row.get('id', number)}: its result is no list of objects")
    version = str(chosen.get("model_version") or "") if predicted else ""
    data = row["data"]
    return _Task(row.get("id", number), data, result, str(row.get("file_upload") or ""), version)


def _add_images(task: _Task, content: _Content) -> None:
    place = f"task {task.number}"
    kinds = {str(region.get("type", "")).lower() for region in task.regions}
    names = _image_names(task.data)
    video = next((text for text in map(str, task.data.values()) if _suffix(text) in VIDEO_SUFFIXES), None)
    if any(kind.startswith(("video", "timeline")) for kind in kinds) or (video and not names):
        raise DataError(
            f"{content.path}: {place} annotates a video, which is not read from Label Studio; export it as YOLO with "
            "frames, or annotate extracted frames"
        )
    if not names:
        raise DataError(f"{content.path}: {place} of Label Studio JSON names no image in {sorted(task.data)[:5]}")
    for index, name in enumerate(names):
        regions = [region for region in task.regions if (region.get("item_index") or 0) == index]
        for region in regions:
            kind = str(region.get("type") or "region").lower()
            if not _is_object(region) and kind not in ("rectangle", "polygon", "brush", "ellipse", "relation"):
                content.left_out[f"regions of type {kind}"] += 1
        sizes = [(region.get("original_height"), region.get("original_width")) for region in regions]
        stated = next(((h, w) for h, w in sizes if type(h) is int and type(w) is int), None)
        # The name under which Label Studio stored an uploaded file.
        uploaded = (task.upload,) if task.upload and len(names) == 1 else ()
        written = list(dict.fromkeys((name, *uploaded)))
        spelled = (*written, *(plain for text in written if (plain := _without_prefix(text)) is not None))
        objects = _objects(content, [region for region in regions if _is_object(region)], place)
        source = f"{content.path.name}: {place}" + (f", image {index + 1}" if len(names) > 1 else "")
        row = AnnotatedImage(spelled, objects, source, stated, any_size=True, model_version=task.model_version)
        content.rows.append(row)


def _is_object(region: Mapping[str, Any]) -> bool:
    value = region.get("value")
    points = str(region.get("type") or "").lower().startswith(("keypoint", "vector"))
    if points or not isinstance(value, dict) or not labels_of(value):
        return False
    # The control `Labels` marks words and sounds as well.
    return "labels" not in value or any(key in value for key in ("rle", "points", "radiusX", "width"))


def _objects(content: _Content, regions: Sequence[Mapping[str, Any]], place: str) -> Objects:
    def read(region: Mapping[str, Any], size_hw: tuple[int, int]) -> list[AnnotatedObject]:
        turn = finite_number(region.get("image_rotation", 0)) or 0
        if turn % 360:
            raise ValueError(f"is drawn on an image turned by {turn:g} degrees, which is not read")
        if not all(map(str.strip, labels_of(region["value"]))):
            raise ValueError("has a label without text")
        return objects_of(region["value"], size_hw, content.masks, finite_number(region.get("score")))

    return each_object(content.findings, content.path, f"{place}: region", rows=regions, read=read)


def _image_names(data: Mapping[str, Any]) -> list[str]:
    """The names of a task's images: of the key `image`, else of the first value that is one, or a list of them."""
    values = [data[key] for key in ("image", "img", "images") if key in data] + list(data.values())
    for value in values:
        names = value if isinstance(value, list) else [value]
        if names and all(isinstance(name, str) and name and _suffix(name) in IMAGE_SUFFIXES for name in names):
            return list(names)
    # An address may have no suffix.
    texts = [value for value in values if isinstance(value, str) and value and _suffix(value) not in VIDEO_SUFFIXES]
    return texts[:1] if "image" in data or len(set(texts)) == 1 else []


def _suffix(name: str) -> str:
    return PurePosixPath(name.rpartition("?d=")[2].partition("?")[0]).suffix.lower()


def _without_prefix(name: str) -> str | None:
    """The name that a file had before it was uploaded; None where it has no prefix."""
    last = PurePosixPath(name.rpartition("?d=")[2]).name
    return _PREFIX.sub("", last, count=1) if _PREFIX.match(last) else None


def _warn(content: _Content) -> None:
    if content.left_out:
        warnings.warn(f"{content.path}: left out {tallied(content.left_out)}", stacklevel=4)
    if content.several:
        warnings.warn(
            f"{content.path}: {content.several} tasks have several annotations; took the ground truth, else the latest",
            stacklevel=4,
        )
