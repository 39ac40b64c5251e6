"""Data sets to COCO's instances JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.geometry.rle import plain_rle
from deixis.records import Dataset, Sample, Vocabulary


def write_coco(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`labels.json` and `images/`. Masks are compressed RLE, so they come back bit for bit.

    Returns:
        the file, for `read_coco`.
    """
    with new_folder(folder) as draft:
        content = empty_content(dataset.vocabulary)
        for sample, name in placed(dataset, draft / "images", images):
            content["images"].append(image_row(sample, name))
            # Numbered from 1, as pycocotools takes an annotation with the id 0 for no match.
            content["annotations"] += annotation_rows(sample, len(content["annotations"]) + 1, masks)
        (draft / "labels.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / "labels.json"


def empty_content(vocabulary: Vocabulary) -> dict[str, list[dict[str, Any]]]:
    """The three lists, categories filled."""
    categories = zip(vocabulary.category_ids, vocabulary.names, strict=True)
    return {"images": [], "annotations": [], "categories": [{"id": i, "name": name} for i, name in categories]}


def image_row(sample: Sample, file_name: str) -> dict[str, Any]:
    """The image as COCO describes it."""
    height, width = sample.size_hw
    return {"id": sample.image_id, "file_name": file_name, "height": height, "width": width}


def annotation_rows(sample: Sample, first_id: int, masks: bool) -> list[dict[str, Any]]:
    """The objects as COCO annotations, numbered from `first_id`."""
    rows = []
    found = sample.instances
    for i, (x1, y1, x2, y2) in enumerate(found.boxes_xyxy_px.tolist()):
        row = {
            "id": first_id + i,
            "image_id": sample.image_id,
            "category_id": sample.vocabulary.category_ids[int(found.class_ids[i])],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(found.areas_px[i]),
            "iscrowd": int(found.is_crowd[i]),
        }
        if masks and found.masks_rle is not None:
            row["segmentation"] = plain_rle(found.masks_rle[i])
        if found.scores is not None:
            row["score"] = float(found.scores[i])
        rows.append(row)
    return rows
