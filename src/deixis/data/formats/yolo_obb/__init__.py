"""YOLO with turned boxes (Ultralytics OBB): lines of a class and four corners, and a `data.yaml`.

They are read as the plain boxes around them; as `yolo` the same files give polygons, and so masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import holds_text
from deixis.data.formats.placing import ImageMode
from deixis.data.formats.record import Format
from deixis.data.formats.yolo.read import find_yolo, read_yolo
from deixis.data.formats.yolo.write import write_labels
from deixis.geometry.masks import outlines
from deixis.records import Dataset, Instances, Rle, Sample, SampleList


def find_yolo_obb(path: Path) -> list[Path]:
    """The YAML files that say of themselves that their boxes are turned, as those written here do."""
    return [file for file in find_yolo(path) if holds_text(file, MARK)]


def read_yolo_obb(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A YOLO data set by its `data.yaml` or folder; each object is the upright box around its corners.

    Args and errors: those of `read_yolo`.
    """
    found = read_yolo(path, images, masks=False, split=split, findings=findings)
    samples = (
        sample.evolve(instances=Instances.build(sample.instances.boxes_xyxy_px, sample.instances.class_ids))
        for sample in found.samples
    )
    return SampleList(tuple(samples), found.vocabulary, found.name)


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


def _corners(box_xyxy_px: Float[np.ndarray, " 4"], rle: Rle | None) -> Float[np.ndarray, "4 2"]:
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


YOLO_OBB = Format(
    "yolo_obb",
    find_yolo_obb,
    read_yolo_obb,
    takes=("split", "findings"),
    write_parts=write_yolo_obb,
    also_not_kept=rounded_off,
    decisive=True,
)
