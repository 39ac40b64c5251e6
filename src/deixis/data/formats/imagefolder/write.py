"""Data sets to Hugging Face's ImageFolder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deixis.atomic_files import new_folder
from deixis.data.formats.parquet.write import objects_row
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset


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
                row = {"file_name": name, **objects_row(sample, next_id)}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
                next_id += len(sample.instances)
            (place / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        names = next(iter(parts.values())).vocabulary.names
        (draft / "README.md").write_text(_card(names), encoding="utf-8")
    return folder


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
