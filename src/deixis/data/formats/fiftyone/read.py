"""FiftyOneDataset (`samples.json`) and FiftyOneImageDetectionDataset (`labels.json`)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import ImageIndex, holds_text, parse_object, read_text, same_split, the_file
from deixis.data.formats.fiftyone.labels import detection, polyline
from deixis.data.formats.shared.annotated_images import AnnotatedImage, Objects, each_object, samples_of
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.pixels.frames import VIDEO_SUFFIXES
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import tallied

_LISTS = {"Detections": "detections", "Polylines": "polylines"}


@dataclass
class _Content:
    """What a file holds beside its rows."""

    path: Path
    findings: Findings | None
    masks: bool
    classes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_fiftyone(path: Path) -> list[Path]:
    """The JSON files of FiftyOne in a folder; or a file itself, if it is one."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and _is_fiftyone(path) else []
    return [file for file in sorted(path.glob("*.json")) if not is_left_by_macos(file) and _is_fiftyone(file)]


def _is_fiftyone(file: Path) -> bool:
    # COCO's JSON, which may have the other keys as well.
    if holds_text(file, '"images"'):
        return False
    if holds_text(file, '"samples"') and holds_text(file, '"filepath"'):
        return True
    return holds_text(file, '"classes"') and holds_text(file, '"labels"') and not holds_text(file, '"shapes"')


@reads("FiftyOne JSON")
def read_fiftyone(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """An export of FiftyOne, or its folder.

    Detections and closed polylines are objects; of several fields `ground_truth` is read, else `detections`, else the
    only one. Class names are those the export lists, else sorted. Samples without the field have no objects.

    Args:
        images: the folder of images, where they are not in `data`.
        split: a tag of samples.

    Raises:
        DataError: malformed JSON, labels that are none, a video, or a missing image.
    """
    file = the_file(path, find_fiftyone, "JSON file of FiftyOne")
    whole = parse_object(read_text(file), str(file))
    content = _Content(file, findings, masks)
    if isinstance(whole.get("samples"), list):
        rows = _of_samples(whole["samples"], content, split)
    elif isinstance(whole.get("labels"), dict):
        if split is not None:
            raise NoSuchSplitError(f"{file}: has no tags to choose {split!r} from; give the file of {split!r}")
        content.classes = _names(whole.get("classes"))
        index = ImageIndex([images] if images is not None else [file.parent / "data", file.parent])
        rows = []
        for key, value in whole["labels"].items():
            with collecting(findings, "record_malformed", file, f"image {key}", "image removed"):
                rows.append(_labelled(key, value, index, content))
    else:
        raise DataError(f"{file}: has neither 'samples' nor 'labels', as exports of FiftyOne have; export it again")
    found = samples_of(file, rows, content.classes, images=images, findings=findings)
    if content.left_out:
        warnings.warn(f"{file}: left out {tallied(content.left_out)}", stacklevel=3)
    return found


def _of_samples(samples: Sequence[Any], content: _Content, split: str | None) -> list[AnnotatedImage]:
    usable = []
    for number, sample in enumerate(samples, start=1):
        with collecting(content.findings, "record_malformed", content.path, f"sample {number}", "image removed"):
            usable.append(_sample(sample, f"{content.path}: sample {number}"))
    samples = usable
    tags = {tag for sample in samples for tag in _tags(sample)}
    name = _field(samples, content.path)
    # Listed names keep their order, and so their numbers, whatever a split shows.
    content.classes = _listed(content.path, name) or sorted({*_labels(samples, name)})
    if split is not None:
        wanted = {tag for tag in tags if same_split(tag.lower()) == same_split(split.lower())}
        if not wanted:
            raise NoSuchSplitError(
                f"{content.path}: no sample has the tag {split!r}, only {', '.join(sorted(tags)) or 'none'}"
            )
        samples = [sample for sample in samples if wanted & _tags(sample)]
    rows = []
    for sample in samples:
        file_name = sample["filepath"]
        place = f"sample {PurePosixPath(file_name).name}"
        objects = _objects(content, _found(sample, name), place)
        rows.append(AnnotatedImage((file_name,), objects, f"{content.path.name}: {place}", any_size=True))
    return rows


def _sample(sample: Any, where: str) -> Mapping[str, Any]:
    """A sample of an image.

    Raises:
        DataError: it is none.
    """
    if not isinstance(sample, dict):
        raise DataError(f"{where} must be an object, got {str(sample)[:40]!r}; export it again")
    file_name = sample.get("filepath")
    if not isinstance(file_name, str) or not file_name:
        raise DataError(f"{where} has no filepath, got {str(file_name)[:40]!r}")
    if PurePosixPath(file_name).suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(f"{where} is a video; export its frames (to_frames) as images")
    return sample


def _tags(sample: Mapping[str, Any]) -> set[str]:
    tags = sample.get("tags")
    return set(map(str, tags)) if isinstance(tags, list) else set()


def _listed(path: Path, name: str) -> list[str]:
    """The classes of a field that FiftyOne lists beside the samples; none where it lists none."""
    beside = path.with_name("metadata.json")
    if not beside.is_file():
        return []
    whole = parse_object(read_text(beside), str(beside))
    classes = whole.get("classes")
    own = _names(classes.get(name)) if isinstance(classes, dict) else []
    return own or _names(whole.get("default_classes"))


def _found(sample: Mapping[str, Any], name: str) -> list[Any]:
    """The labels in a field of a sample."""
    value = sample.get(name)
    if not isinstance(value, dict):
        return []
    found = value.get(_LISTS[str(value["_cls"])]) if str(value.get("_cls")) in _LISTS else [value]
    return found if isinstance(found, list) else []


def _labels(samples: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    """The names of all labels, of all samples: a split must not number its classes otherwise than another."""
    for sample in samples:
        for row in _found(sample, name):
            if isinstance(row, dict) and isinstance(row.get("label"), str) and row["label"].strip():
                yield row["label"].strip()


def _field(samples: Sequence[Mapping[str, Any]], path: Path) -> str:
    """The field of samples that holds their objects."""
    kinds = (*_LISTS, "Detection", "Polyline")
    fields = {
        name: None
        for sample in samples
        for name, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") in kinds
    }
    usual = [name for name in fields if name in ("ground_truth", "detections")]
    chosen = sorted(usual, reverse=True)[:1] or list(fields)  # `ground_truth` before `detections`
    if len(chosen) != 1:
        seen = ", ".join(fields) or "none"
        raise DataError(f"{path}: expected one field of detections or polylines, found {seen}; export only one field")
    return chosen[0]


def _labelled(key: str, labels: Any, index: ImageIndex, content: _Content) -> AnnotatedImage:
    """An image of the short form, whose key is its file's name, without the suffix."""
    if labels is not None and not isinstance(labels, list):
        raise DataError(f"{content.path}: image {key[:80]!r} has no list of boxes; export detections, not classes")
    objects = _objects(content, labels or (), f"image {key}")
    file = index.find(key, PurePosixPath(key).name)
    names = (key,) if file is None else (file.name,)
    return AnnotatedImage(names, objects, f"{content.path.name}: image {key}", any_size=True)


def _objects(content: _Content, rows: Sequence[Any], place: str) -> Objects:
    def read(row: Any, size_hw: tuple[int, int]) -> list[AnnotatedObject]:
        if not isinstance(row, dict):
            raise ValueError("is no object")
        label = _label(row.get("label"), content.classes)
        if "points" not in row:
            return [detection(row, label, size_hw, content.masks)]
        found = polyline(row, label, size_hw, content.masks)
        if found is not None:
            return [found]
        content.left_out["lines that enclose nothing"] += 1
        return []

    return each_object(content.findings, content.path, f"{place}: label", rows=rows, read=read)


def _label(label: Any, classes: Sequence[str]) -> str:
    if type(label) is int and 0 <= label < len(classes):
        return classes[label]
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"has no label, got {str(label)[:40]!r}")
    return label


def _names(value: Any) -> list[str]:
    names = value if isinstance(value, list) else []
    return list(dict.fromkeys(name.strip() for name in names if isinstance(name, str) and name.strip()))
