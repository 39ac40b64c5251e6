"""Data sets to FiftyOneImageDetectionDataset."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset, Sample


def write_fiftyone(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`labels.json` and `data/`. Crowds are left out. Scores become the detections' confidence.

    Returns:
        the file, for `read_fiftyone`.
    """
    del masks  # the format has boxes only
    with new_folder(folder) as draft:
        pairs = placed(dataset, draft / "data", images)
        labels = {PurePosixPath(name).stem: _detections(sample) for sample, name in pairs}
        content = {"classes": list(dataset.vocabulary.names), "labels": labels}
        (draft / "labels.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / "labels.json"


def _detections(sample: Sample) -> list[dict[str, Any]]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    height, width = sample.size_hw
    rows = []
    for i, (x1, y1, x2, y2) in enumerate(objects.boxes_xyxy_px.tolist()):
        row: dict[str, Any] = {
            "label": sample.vocabulary.names[int(objects.class_ids[i])],
            "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
        }
        if objects.scores is not None:
            row["confidence"] = float(objects.scores[i])
        rows.append(row)
    return rows
