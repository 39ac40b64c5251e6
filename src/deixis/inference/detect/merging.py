"""What several wordings of a class, or several classes, found in one place becomes one detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deixis.errors import OptionError
from deixis.geometry.pixel_boxes import overlaps
from deixis.results.detections import Detections

SAME_IOU = 0.7
"""Boxes of two wordings with this IoU are one object."""


def require_iou(name: str, iou: float | None) -> None:
    """Raises OptionError for an IoU at which boxes without any overlap would suppress each other."""
    if iou is not None and not 0 < iou <= 1:
        raise OptionError(f"{name}: expected a number above 0, at most 1, got {iou}")


def merge_wordings(
    found: Detections, rows: Sequence[int], names: tuple[str, ...], *, count: int, iou: float = SAME_IOU
) -> Detections:
    """The detections of one image, found by wordings, as those of classes: of boxes on one object the best stays.

    Two boxes are on one object where they are of one class and different wordings. Boxes of the same wording never
    replace each other: the model itself decides there.

    Args:
        found: best first.
        rows: the class of each wording, as a position in `names`.
        count: how many are kept.
        iou: overlap of boxes on one object.

    >>> boxes = np.array([[0.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 8]])
    >>> found = Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]), ("car", "sedan"))
    >>> merge_wordings(found, [0, 0], ("car",), count=9).scores.tolist()
    [0.9, 0.7]
    """
    wording, class_ids = found.class_ids, np.asarray(rows, np.int64)[found.class_ids]  # [n] each
    several = np.bincount(rows, minlength=len(names)) > 1  # [classes]; classes of one wording have nothing to merge
    gone = np.zeros(len(found), bool)
    for place in np.flatnonzero(several[class_ids]):
        if not gone[place]:
            # `found` is best first, so only what comes after can give way
            after = place + 1 + np.flatnonzero((class_ids == class_ids[place])[place + 1 :])
            after = after[wording[after] != wording[place]]
            gone[after] |= overlaps(found.boxes_xyxy_px[place], found.boxes_xyxy_px[after])[0] >= iou
    return replace(found, class_ids=class_ids, names=names)[~gone].best(count)
