"""What is most worth a look: where model and labels disagree, where the model is unsure, where labels are likely wrong,
and what is unlike the other images.

Each is measured per image and divided by its largest value in the data set; their sum orders the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from deixis.evaluation.mistakes import judge, likely_label_errors, overlaps_of
from deixis.evaluation.thresholds import MIN_IOU

KINDS = ("disagreement", "uncertainty", "label_error", "novelty")
ORDERS = ("worth", *KINDS, "file")
_MISSED = 0.5  # weight of an object that the model misses; a detection weighs its score
_UNSURE = 0.8
_SIDE = 4  # of the thumbnails whose colours are compared
Row = Mapping[str, Any]


@dataclass
class Worth:
    """What speaks for looking at an image, each from 0, and why in words."""

    disagreement: float = 0.0
    uncertainty: float = 0.0
    label_error: float = 0.0
    novelty: float = 0.0
    why: list[str] = field(default_factory=list)


def measure_worth(
    annotations: Sequence[Row], results: Sequence[Row], thresholds: Mapping[int, float], labelled: frozenset[int]
) -> dict[int, Worth]:
    """Disagreement, uncertainty and likely label errors of each image that has any.

    Args:
        annotations, results: in COCO's form; results of any score.
        thresholds: of each category, from which its detections are shown.
        labelled: images whose labels mean something; in others the model disagrees with nobody.
    """
    found: dict[int, Worth] = defaultdict(Worth)
    known = [row for row in results if row["image_id"] in labelled]
    judged = judge(annotations, known, lambda category: thresholds[category])
    for one in judged.mistakes:
        found[one.image_id].disagreement += _MISSED if one.kind == "missed" else one.score
    for one in likely_label_errors(judged.mistakes, len(judged.mistakes)):
        found[one.image_id].label_error = max(found[one.image_id].label_error, one.score)
    missed, wrong = (
        _counts(one.image_id for one in judged.mistakes if (one.kind == "missed") == is_missed)
        for is_missed in (True, False)
    )
    margins: dict[int, list[float]] = defaultdict(list)
    for row in results:
        least = thresholds[row["category_id"]]
        # What scores less than half of the threshold is in no doubt.
        if row["score"] >= least / 2:
            # 1 at the threshold, 0 at the end of [0, 1] that is farther from it.
            margins[row["image_id"]].append(1 - abs(row["score"] - least) / max(least, 1 - least))
    for image, each in margins.items():
        found[image].uncertainty = float(np.mean(each))
    for image, worth in found.items():
        if missed[image]:
            worth.why.append(f"labels that the model does not find: {missed[image]}")
        if wrong[image]:
            worth.why.append(f"detections without such a label: {wrong[image]}")
        if worth.uncertainty > _UNSURE:
            worth.why.append("scores near the threshold")
    return found


def novelties(thumbs: Float[np.ndarray, "images features"]) -> Float[np.ndarray, " images"]:
    """The distance of each image to the one that is most like it."""
    if len(thumbs) < 2:
        return np.zeros(len(thumbs))
    distances, _ = cKDTree(thumbs).query(thumbs, k=2)  # [images, 2], the first being itself
    return np.asarray(distances[:, 1], np.float64)


def thumbnail(pixels: np.ndarray) -> Float[np.ndarray, " features"]:
    """The colours of an image, small enough to compare."""
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(-1) / 255, np.float64)


def summed(found: Sequence[Worth]) -> Float[np.ndarray, " images"]:
    """The order of the queue: each kind divided by its largest value, added up."""
    table = np.array([[getattr(one, kind) for kind in KINDS] for one in found], np.float64).reshape(-1, len(KINDS))
    largest = table.max(0, initial=0)
    whole: np.ndarray = (table / np.where(largest > 0, largest, 1)).sum(1)
    return whole


def same_objects(labels: Sequence[Row], found: Sequence[Row]) -> dict[int, int]:
    """Which detection (position, best score first) shows each label of an image: of its class, at IoU 0.5 or more."""
    iou = overlaps_of(labels, found)
    pairs: dict[int, int] = {}
    for place, row in enumerate(found):
        fits = [
            (iou[label, place], label)
            for label, one in enumerate(labels)
            if label not in pairs and one["category_id"] == row["category_id"] and iou[label, place] >= MIN_IOU
        ]
        if fits:
            pairs[max(fits)[1]] = place
    return pairs


def _counts(images: Any) -> dict[int, int]:
    counts: dict[int, int] = defaultdict(int)
    for image in images:
        counts[image] += 1
    return counts
