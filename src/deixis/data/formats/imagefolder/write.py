"""Data sets to Hugging Face's ImageFolder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset, Sample


def write_imagefolder(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`train/metadata.jsonl` beside its images, the same for each part, and a data card with the class names.

    `val` is called `validation`, as `datasets` expects it. Categories are numbers, which `README.md` names.

    Returns:
        the folder, for `read_imagefolder` and `datasets.load_dataset`.
    """
    del masks  # the layout has none
    next_id = 0
    with new_folder(folder) as draft:
        for part, dataset in parts.items():
            place = draft / ("validation" if part == "val" else part)
            lines = []
            for sample, name in placed(dataset, place, images):
                lines.append(json.dumps(_row(sample, name, next_id), ensure_ascii=False) + "\n")
                next_id += len(sample.instances)
            (place / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        names = next(iter(parts.values())).vocabulary.names
        (draft / "README.md").write_text(_card(names), encoding="utf-8")
    return folder


def _row(sample: Sample, name: str, first_id: int) -> dict[str, Any]:
    objects = sample.instances
    height, width = sample.size_hw
    return {
        "file_name": name,
        "image_id": sample.image_id,
        "width": width,
        "height": height,
        "objects": {
            "id": list(range(first_id, first_id + len(objects))),
            "bbox": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in objects.boxes_xyxy_px.tolist()],
            "category": objects.class_ids.tolist(),
            "area": objects.areas_px.tolist(),
            "iscrowd": objects.is_crowd.tolist(),
        },
    }


def _card(names: Sequence[str]) -> str:
    """A README whose head describes the columns as `datasets` does."""
    classes = {"class_label": {"names": {str(number): name for number, name in enumerate(names)}}}
    objects = {"id": "int64", "bbox": {"list": "float64"}, "category": classes, "area": "float64", "iscrowd": "bool"}
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        *({"name": name, "dtype": "int64"} for name in ("image_id", "width", "height")),
        {"name": "objects", "struct": [{"name": name, "list": kind} for name, kind in objects.items()]},
    ]
    head = {"task_categories": ["object-detection"], "dataset_info": {"features": features}}
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\nBoxes are [x, y, width, height] in pixels.\n"
