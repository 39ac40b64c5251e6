"""Data sets to labelme JSON files."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.formats.labelme.shapes import CROWD_FLAG
from deixis.data.formats.placing import ImageMode, placed
from deixis.geometry.masks import outlines
from deixis.records import Dataset, Rle, Sample

_VERSION = "5.5.0"  # of labelme, which wants one


def write_labelme(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """A JSON file beside each image, and `labels.txt` with all class names.

    A mask of one part without holes becomes a polygon along the edges of its pixels, any other a shape of the kind
    `mask`, so masks come back bit for bit; an object without a mask becomes a rectangle. Crowds carry the flag `crowd`.

    Returns:
        the folder, for `read_labelme`.
    """
    with new_folder(folder) as draft:
        for sample, name in placed(dataset, draft, images):
            text = json.dumps(labelme_content(sample, name, masks), ensure_ascii=False)
            (draft / name).with_suffix(".json").write_text(text, encoding="utf-8")
        names = "".join(f"{name}\n" for name in ("__ignore__", *dataset.vocabulary.names))
        (draft / "labels.txt").write_text(names, encoding="utf-8")
    return folder


def labelme_content(sample: Sample, image_name: str, masks: bool = True) -> dict[str, Any]:
    """The content of an image's file."""
    height, width = sample.size_hw
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": [_shape(sample, i, masks) for i in range(len(sample.instances))],
        "imagePath": image_name,
        "imageData": None,  # labelme then reads the file at `imagePath`
        "imageHeight": height,
        "imageWidth": width,
    }


def _shape(sample: Sample, index: int, masks: bool) -> dict[str, Any]:
    objects = sample.instances
    flags = {CROWD_FLAG: True} if objects.is_crowd[index] else {}
    shape: dict[str, Any] = {
        "label": sample.vocabulary.names[int(objects.class_ids[index])],
        "points": objects.boxes_xyxy_px[index].reshape(2, 2).tolist(),
        "group_id": None,
        "description": "",
        "shape_type": "rectangle",
        "flags": flags,
    }
    if masks and objects.masks_rle is not None:
        shape |= _drawn(objects.masks_rle[index])
    return shape


def _drawn(rle: Rle) -> dict[str, Any]:
    """The points of a mask: a polygon, or a bitmap; nothing where the mask is empty, which leaves the rectangle."""
    bitmap = np.ascontiguousarray(coco_mask.decode(rle))
    found = outlines(bitmap)
    if not found:
        return {}
    if len(found) == 1:
        return {"shape_type": "polygon", "points": found[0].astype(float).tolist()}
    rows, columns = np.nonzero(bitmap)
    left, top, right, bottom = (int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max()))
    file = BytesIO()
    Image.fromarray(bitmap[top : bottom + 1, left : right + 1] * np.uint8(255)).save(file, "PNG")
    corners = [[float(left), float(top)], [float(right), float(bottom)]]
    return {"shape_type": "mask", "points": corners, "mask": base64.b64encode(file.getvalue()).decode()}
