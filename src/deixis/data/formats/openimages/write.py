"""Data sets to Open Images CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.sets.embedded import records
from deixis.records import Dataset, Sample

_BOX_COLUMNS = (
    # In Open Images' order: both x before both y.
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"),
)
_UNKNOWN = "-1"  # Open Images' own value for an attribute nobody judged


def write_openimages(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`train-annotations-bbox.csv`, `class-descriptions.csv`, `train-images.csv` and `images/`.

    Where classes were looked for and not found in some images only, also `train-human-imagelabels.csv`, with
    confidence 1 for the classes of an image and 0 for those known to be absent. Labels are the names themselves.

    Returns:
        the file of boxes, for `read_openimages`.
    """
    del masks  # Open Images keeps them in files of another kind
    judged = any(sample.absent_class_ids is not None or _has_own_names(sample, dataset) for sample in records(dataset))
    boxes, labels, listed = [], [], []
    with new_folder(folder) as draft:
        for sample, name in placed(dataset, draft / "images", images):
            image_id = Path(name).stem
            listed.append((image_id, "train"))
            boxes += _boxes(sample, image_id)
            labels += _labels(sample, image_id)
        _write(draft / "train-annotations-bbox.csv", [_BOX_COLUMNS, *boxes])
        _write(draft / "train-images.csv", [("ImageID", "Subset"), *listed])
        if judged:
            _write(draft / "train-human-imagelabels.csv", [("ImageID", "Source", "LabelName", "Confidence"), *labels])
        _write(draft / "class-descriptions.csv", [(name, name) for name in dataset.vocabulary.names])
    return folder / "train-annotations-bbox.csv"


def _has_own_names(sample: Sample, dataset: Dataset) -> bool:
    return sample.vocabulary.names != dataset.vocabulary.names


def _boxes(sample: Sample, image_id: str) -> list[tuple[str, ...]]:
    height, width = sample.size_hw
    objects = sample.instances
    rows: list[tuple[str, ...]] = []
    for (x1, y1, x2, y2), class_id, crowd in zip(
        objects.boxes_xyxy_px.tolist(), objects.class_ids.tolist(), objects.is_crowd.tolist(), strict=True
    ):
        shares = (repr(x1 / width), repr(x2 / width), repr(y1 / height), repr(y2 / height))
        attributes = (_UNKNOWN, _UNKNOWN, str(int(crowd)), _UNKNOWN, _UNKNOWN)
        rows.append((image_id, "deixis", sample.vocabulary.names[class_id], "1", *shares, *attributes))
    return rows


def _labels(sample: Sample, image_id: str) -> list[tuple[str, ...]]:
    names = sample.vocabulary.names
    found: list[tuple[str, ...]] = [(image_id, "verification", names[i], "1") for i in sorted(sample.present_class_ids)]
    return found + [(image_id, "verification", names[i], "0") for i in sorted(sample.known_absent_class_ids)]


def _write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
