"""Data sets to YOLO's turned boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from pycocotools import mask as coco_mask

from deixis.data.formats.placing import ImageMode
from deixis.data.formats.yolo.write import write_labels
from deixis.geometry.masks import outlines
from deixis.records import Dataset, Rle, Sample

MARK = "task: obb"
_MAX_MARGIN_PX = 0.75
"""By which corners of pixels may stand out of the turned rectangle that was drawn; more, and it was no rectangle."""


def write_yolo_obb(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`data.yaml`, and `images/train/` and `labels/train/` for each part, as Ultralytics takes it. Crowds are left out.

    An object with a mask becomes the smallest turned rectangle around it, within a pixel of the one that was drawn
    where the mask is one; its corners outside the image are moved to its edge. Any other becomes an upright one.

    Returns:
        the YAML file, for `read_yolo_obb` and `read_yolo`.
    """
    return write_labels(parts, folder, images, lambda sample: _lines(sample, masks), MARK)


def rounded_off(dataset: Dataset, samples: Sequence[Sample]) -> list[str]:
    """One line for the objects that become turned rectangles."""
    count = sum(int((~sample.instances.is_crowd).sum()) for sample in samples if sample.instances.masks_rle)
    meant = "each becomes the smallest turned rectangle around its mask, its box the one around that"
    return [f"shapes of {count} objects: {meant}"] if count else []


def _lines(sample: Sample, masks: bool) -> list[str]:
    objects = sample.instances.select(~sample.instances.is_crowd)
    rles = objects.masks_rle if masks and objects.masks_rle is not None else [None] * len(objects)
    lines = []
    for class_id, box, rle in zip(objects.class_ids.tolist(), objects.boxes_xyxy_px, rles, strict=True):
        corners = _corners(box, rle) / np.array(sample.size_hw[::-1])
        lines.append(" ".join([str(class_id), *map(repr, corners.clip(0, 1).reshape(-1).tolist())]))
    return lines


def _corners(box_xyxy_px: Float[np.ndarray, 4], rle: Rle | None) -> Float[np.ndarray, "4 2"]:
    """The corners of an object in pixels, one after the other around it."""
    pixels = np.zeros((0, 0), np.uint8) if rle is None else np.ascontiguousarray(coco_mask.decode(rle))
    around = outlines(pixels)
    if around:
        centre, (width, height), degrees = cv2.minAreaRect(np.concatenate(around).astype(np.float32))
        # (width - 2 margin) (height - 2 margin) = the mask's area
        margin = (width + height - math.sqrt((width - height) ** 2 + 4 * float(pixels.sum()))) / 4
        margin = margin if margin < _MAX_MARGIN_PX else 0.0
        turned: np.ndarray = cv2.boxPoints((centre, (width - 2 * margin, height - 2 * margin), degrees))
        return turned.astype(np.float64)
    x1, y1, x2, y2 = box_xyxy_px.tolist()
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
