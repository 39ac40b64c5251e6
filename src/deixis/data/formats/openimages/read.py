"""Open Images boxes: one CSV row per box, corners over the image's size."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import (
    ImageIndex,
    clip_instances,
    read_text,
    the_file,
    vocabulary_of,
    warn_dropped,
)
from deixis.data.formats.foreign import foreign_file
from deixis.data.formats.shared.box_values import in_order
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_BOX_COLUMNS = {"ImageID", "LabelName", *_CORNERS}


@dataclass
class _Image:
    """What the files hold about one image; boxes are over its size, class ids rows of the vocabulary."""

    boxes: list[list[float]] = field(default_factory=list)
    class_ids: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)


def find_openimages(path: Path) -> list[Path]:
    """The CSV files of a folder, or of its `annotations`, that hold boxes; or a CSV file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".csv" and foreign_file(path) is None else []
    files = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.csv"))]
    return [file for file in files if not is_left_by_macos(file) and set(header(file)) >= _BOX_COLUMNS]


def header(file: Path) -> list[str]:
    """The first row of a CSV file; empty where it cannot be read."""
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines), [])
    except (OSError, ValueError, csv.Error, DataError):
        return []


@reads("Open Images annotations")
def read_openimages(path: str | Path, images: Path | None = None, findings: Findings | None = None) -> SampleList:
    """A CSV file of Open Images boxes, or the folder that holds one.

    Beside it are `…class-descriptions….csv` (label to name, in the order of the vocabulary; without it labels are
    names) and, if any, the verified image labels (columns `ImageID, LabelName, Confidence`) and the list of images
    (`ImageID, Subset`). Boxes with `IsGroupOf` are crowds. Where there are image labels, those with confidence 0 are
    the classes known to be absent, and nothing is known of the classes not mentioned.

    Images are found by their id, in the folder of the CSV or in `images`. Most people hold a part of Open Images:
    rows of images that are not there are left out, with a warning that counts the images.

    Raises:
        DataError: a missing column, a label without a description, a box that is no box, or no image at all.
    """
    file = the_file(path, find_openimages, "CSV file of boxes")
    names = class_descriptions(file)
    rows = list(_read_csv(file, _BOX_COLUMNS, findings))
    if names is None:
        used = sorted({row["LabelName"] for row in rows})
        # Freebase's ids, as in Open Images itself; in other tables the labels are the names.
        if any(label.startswith("/m/") for label in used):
            raise DataError(
                f"{file}: labels such as {used[0]!r} need names; put class-descriptions.csv beside the file"
            )
        names = {label: label for label in used}
    vocabulary = vocabulary_of(list(names.values()), str(file))
    labels = {label: row for row, label in enumerate(names)}
    found, judged = _gather(file, rows, labels, findings)
    paths = _find_images(file, sorted(found), images, findings)
    samples, dropped = [], []
    for number, (image_id, image) in enumerate(paths.items(), start=1):
        with collecting(findings, "image_unreadable", image, f"{file.name}: image {image_id}", "image removed"):
            size_hw = image_sizes_hw(image)[0]
            sample, lost = _sample(found[image_id], image, size_hw, vocabulary, judged, findings is not None)
            samples.append(sample.evolve(image_id=number, source=f"{file.name}: image {image_id}"))
            dropped += [samples[-1].source] * lost
    warn_dropped(str(file), dropped)
    return SampleList(tuple(samples), vocabulary, name=file.stem)


def _read_csv(file: Path, wanted: set[str], findings: Findings | None) -> Iterator[dict[str, str]]:
    """The rows by column, with the line number under `line`; with findings without those that are cut short."""
    reader = csv.DictReader(StringIO(read_text(file), newline=""))
    try:
        absent = sorted(wanted - set(reader.fieldnames or ()))
        if absent:
            raise DataError(f"{file}: has no column {', '.join(absent)}; its first row is {reader.fieldnames}")
        for row in reader:
            place, whole = f"line {reader.line_num}", not (None in row or None in row.values())
            with collecting(findings, "record_malformed", file, place, "line removed"):
                if not whole:
                    raise DataError(f"{file}: {place}: has not {len(reader.fieldnames or ())} values")
            if whole:
                yield row | {"line": str(reader.line_num)}
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: malformed CSV: {error}") from error


def class_descriptions(file: Path) -> dict[str, str] | None:
    """Label to name, from the class descriptions beside a file; None where there are none."""
    found = sorted(file.parent.glob("*class-descriptions*.csv"))
    if not found:
        return None
    if len(found) > 1:
        seen = ", ".join(path.name for path in found)
        raise DataError(f"{file}: several class descriptions beside it ({seen}); leave the one that belongs to it")
    names = {}
    for number, row in enumerate(csv.reader(StringIO(read_text(found[0]), newline="")), start=1):
        # Version 7 has a first line of column names, earlier ones have none.
        if row == ["LabelName", "DisplayName"] or not row:
            continue
        if len(row) != 2 or row[0] in names:
            raise DataError(f"{found[0]}: line {number}: expected a label of its own and its name, got {row}")
        names[row[0]] = row[1]
    return names


def _gather(
    file: Path, rows: Sequence[Mapping[str, str]], labels: Mapping[str, int], findings: Findings | None
) -> tuple[dict[str, _Image], bool]:
    """What is known of each image by id, and whether classes were verified."""
    found: dict[str, _Image] = {}
    for row in rows:
        where = f"{file}: line {row['line']}"
        image = found.setdefault(row["ImageID"], _Image())
        with collecting(findings, "record_malformed", file, f"line {row['line']}", "box removed"):
            class_id, box = _class_id(row, labels, where), [_share(row, corner, where) for corner in _CORNERS]
            image.class_ids.append(class_id)
            image.boxes.append(box)
            image.crowd.append(row.get("IsGroupOf") == "1")
    judged = False
    for other in sorted(set(file.parent.glob("*.csv")) - {file}):
        columns = set(header(other))
        if {"ImageID", "LabelName", "Confidence"} <= columns and not columns & set(_CORNERS):
            judged = True
            for row in _read_csv(other, {"ImageID"}, findings):
                image = found.setdefault(row["ImageID"], _Image())
                if row["Confidence"].strip() in ("0", "0.0"):
                    with collecting(findings, "record_malformed", other, f"line {row['line']}", "line removed"):
                        image.absent.add(_class_id(row, labels, f"{other}: line {row['line']}"))
        elif {"ImageID", "Subset"} <= columns and "LabelName" not in columns:
            for row in _read_csv(other, {"ImageID"}, findings):
                # An image that is listed and has no box is one without objects.
                found.setdefault(row["ImageID"], _Image())
    return found, judged


def _class_id(row: Mapping[str, str], labels: Mapping[str, int], where: str) -> int:
    if row["LabelName"] not in labels:
        raise DataError(f"{where}: label {row['LabelName']!r} is not among the {len(labels)} class descriptions")
    return labels[row["LabelName"]]


def _share(row: Mapping[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not -0.5 <= value <= 1.5:  # boxes may leave the image a little; pixels are refused
        raise DataError(f"{where}: {column} must be a share of the image's size, from 0 to 1, got {row[column]!r}")
    return value


def _find_images(
    file: Path, image_ids: Sequence[str], images: Path | None, findings: Findings | None
) -> dict[str, Path]:
    home = file.parent
    places = [images] if images is not None else [home / "images", home, home.parent / "images", home.parent]
    places += [place / file.name.split("-")[0] for place in list(places)]  # train-annotations-bbox.csv: train/
    index = ImageIndex(place for place in places if place.is_dir())
    present, absent = {}, 0
    for image_id in image_ids:
        with collecting(findings, "image_misplaced", image_id, file.name, "image removed"):
            image = index.find("", image_id)
            absent += image is None
            if image is not None:
                present[image_id] = image
    if not present:
        raise DataError(
            f"{file}: none of its {len(image_ids)} images found, the first is {next(iter(image_ids), None)!r}; looked "
            f"in {', '.join(map(str, places))}; give their folder with --images"
        )
    if absent:
        warnings.warn(f"{file}: left out {absent} of {len(image_ids)} images, which are not there", stacklevel=3)
    return present


def _sample(
    found: _Image, image: Path, size_hw: tuple[int, int], vocabulary: Vocabulary, judged: bool, keep_all: bool
) -> tuple[Sample, int]:
    height, width = size_hw
    boxes = in_order(np.array(found.boxes).reshape(-1, 4)) * (width, height, width, height)
    instances, lost = clip_instances(Instances.build(boxes, found.class_ids, found.crowd), size_hw, keep_all)
    present = set(instances.class_ids.tolist())
    # A box says more than a label that calls its class absent.
    absent = frozenset(found.absent - present) if judged else None
    if absent is not None and len(absent | present) == len(vocabulary):
        absent = None  # everything was looked for
    return Sample(image, size_hw, instances, vocabulary, absent_class_ids=absent), lost
