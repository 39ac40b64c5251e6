"""Data sets to CreateML's JSON."""

from __future__ import annotations

import json
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset

FILE = "_annotations.createml.json"


def write_createml(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`_annotations.createml.json` beside the images, as Create ML takes a folder. Crowds are left out.

    Returns:
        the JSON file, for `read_createml`.
    """
    del masks  # CreateML has none
    with new_folder(folder) as draft:
        rows = []
        for sample, name in placed(dataset, draft, images):
            objects = sample.instances.select(~sample.instances.is_crowd)
            annotations = [
                {
                    "label": sample.vocabulary.names[class_id],
                    "coordinates": {
                        "x": (x1 + x2) / 2,
                        "y": (y1 + y2) / 2,
                        "width": x2 - x1,
                        "height": y2 - y1,
                    },
                }
                for (x1, y1, x2, y2), class_id in zip(
                    objects.boxes_xyxy_px.tolist(), objects.class_ids.tolist(), strict=True
                )
            ]
            rows.append({"image": name, "annotations": annotations})
        (draft / FILE).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / FILE
