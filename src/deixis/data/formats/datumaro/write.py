"""Data sets to Datumaro's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.geometry.rle import plain_rle
from deixis.records import Dataset, Sample


def write_datumaro(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`annotations/PART.json` and `images/PART/` for each part. An object with a mask becomes a mask, others a box.

    Returns:
        the folder, for `read_datumaro`.
    """
    with new_folder(folder) as draft:
        (draft / "annotations").mkdir()
        for part, dataset in parts.items():
            labels = [{"name": name, "parent": "", "attributes": []} for name in dataset.vocabulary.names]
            content = {
                "dm_format_version": "1.0",
                "infos": {},
                "categories": {"label": {"labels": labels, "attributes": ["is_crowd"]}},
                "items": [
                    _item(sample, name, masks) for sample, name in placed(dataset, draft / "images" / part, images)
                ],
            }
            text = json.dumps(content, ensure_ascii=False)
            (draft / "annotations" / f"{part}.json").write_text(text, encoding="utf-8")
    return folder


def _item(sample: Sample, name: str, masks: bool) -> dict[str, Any]:
    rows = []
    objects = sample.instances
    for i, (x1, y1, x2, y2) in enumerate(objects.boxes_xyxy_px.tolist()):
        row: dict[str, Any] = {"id": i, "attributes": {"is_crowd": bool(objects.is_crowd[i])}, "group": 0}
        row |= {"label_id": int(objects.class_ids[i]), "z_order": 0}
        if masks and objects.masks_rle is not None and coco_mask.area(objects.masks_rle[i]):
            row |= {"type": "mask", "rle": plain_rle(objects.masks_rle[i])}
        else:
            row |= {"type": "bbox", "bbox": [x1, y1, x2 - x1, y2 - y1]}
        rows.append(row)
    image = {"path": name, "size": list(sample.size_hw)}
    return {"id": PurePosixPath(name).stem, "annotations": rows, "attr": {}, "image": image}
