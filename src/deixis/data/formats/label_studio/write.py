"""Data sets to tasks for Label Studio, annotated or predicted, and the labelling configuration that they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.formats.label_studio.brush import encode_brush
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset, Sample, Vocabulary


def write_label_studio(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`tasks.json`, `label_config.xml` and `images/`. Crowds are left out.

    Objects with scores become predictions, with the version of the model; others an annotation. A mask becomes a brush,
    which comes back bit for bit, any other object a rectangle. Images are named as Label Studio serves local files from
    a document root that holds the folder.

    Returns:
        the file, for `read_label_studio`.
    """
    with new_folder(folder) as draft:
        tasks = []
        predicted = any(sample.instances.scores is not None or sample.model_version for sample in _samples(dataset))
        for number, (sample, name) in enumerate(placed(dataset, draft / "images", images), start=1):
            regions = _regions(sample, masks)
            task: dict[str, Any] = {"id": number, "data": {"image": f"/data/local-files/?d=images/{quote(name)}"}}
            if predicted:
                task["predictions"] = [
                    {"model_version": sample.model_version, "score": _mean(sample), "result": regions}
                ]
            else:
                task["annotations"] = [{"result": regions}]
            tasks.append(task)
        (draft / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        (draft / "label_config.xml").write_bytes(_configuration(dataset.vocabulary))
    return folder / "tasks.json"


def _samples(dataset: Dataset) -> list[Sample]:
    from deixis.data.sets.embedded import records

    return list(records(dataset))


def _mean(sample: Sample) -> float | None:
    scores = sample.instances.scores
    return float(scores.mean()) if scores is not None and len(scores) else None


def _regions(sample: Sample, masks: bool) -> list[dict[str, Any]]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    height, width = sample.size_hw
    regions = []
    for i, (x1, y1, x2, y2) in enumerate(objects.boxes_xyxy_px.tolist()):
        name = sample.vocabulary.names[int(objects.class_ids[i])]
        pixels = None
        if masks and objects.masks_rle is not None:
            pixels = np.ascontiguousarray(coco_mask.decode(objects.masks_rle[i]))
        if pixels is not None and pixels.any():
            kind, control = "brushlabels", "brush"
            value: dict[str, Any] = {"format": "rle", "rle": encode_brush(pixels), "brushlabels": [name]}
        else:
            kind, control = "rectanglelabels", "box"
            x, y, w, h = (share * 100 for share in (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height))
            value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [name]}
        region: dict[str, Any] = {
            "id": f"{sample.image_id}_{i + 1}",
            "type": kind,
            "from_name": control,
            "to_name": "image",
        }
        region |= {"original_width": width, "original_height": height, "image_rotation": 0, "value": value}
        if objects.scores is not None:
            region["score"] = float(objects.scores[i])
        regions.append(region)
    return regions


def _configuration(vocabulary: Vocabulary) -> bytes:
    """Label Studio's settings of a project: rectangles and brushes with the names of all classes."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for tag, name in (("RectangleLabels", "box"), ("BrushLabels", "brush")):
        control = ElementTree.SubElement(view, tag, name=name, toName="image")
        for label in vocabulary.names:
            ElementTree.SubElement(control, "Label", value=label)
    ElementTree.indent(view)
    return bytes(ElementTree.tostring(view, encoding="utf-8"))
