"""The score from which detections are worth showing: where F1 at IoU 0.5 is highest, or precision high enough."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask

from deixis.records import Sample
from deixis.results.detections import Detections

DEFAULT_THRESHOLD = 0.3
"""Score from which detections are shown where none was chosen."""
SCORES = np.arange(1, 100) / 100
"""Thresholds that are tried."""
MIN_OBJECTS = 10
"""A class with fewer objects has no threshold of its own: a single object would decide on it."""
MIN_IOU = 0.5


@dataclass(frozen=True)
class Counts:
    """The detections of a class, or of all, that are right and those that are wrong.

    Attributes:
        objects: how many there are.
        right_scores, wrong_scores: of the detections.
    """

    objects: int
    right_scores: Float[np.ndarray, " right"]
    wrong_scores: Float[np.ndarray, " wrong"]

    @cached_property
    def right(self) -> Float[np.ndarray, " thresholds"]:
        """How many are right from each of `SCORES` on."""
        return _at_least(self.right_scores)

    @cached_property
    def wrong(self) -> Float[np.ndarray, " thresholds"]:
        """How many are wrong from each of `SCORES` on."""
        return _at_least(self.wrong_scores)

    @property
    def f1(self) -> Float[np.ndarray, " thresholds"]:
        """2 TP / (detections + objects)."""
        curve: np.ndarray = 2 * self.right / np.maximum(self.right + self.wrong + self.objects, 1)
        return curve

    @property
    def recall(self) -> Float[np.ndarray, " thresholds"]:
        """TP / objects."""
        curve: np.ndarray = self.right / max(self.objects, 1)
        return curve

    @property
    def precision(self) -> Float[np.ndarray, " thresholds"]:
        """TP / detections; NaN from scores on that no detection has."""
        found = self.right + self.wrong
        curve: np.ndarray = np.divide(self.right, found, out=np.full(len(found), np.nan), where=found > 0)
        return curve


def counts_by_class(
    annotations: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> dict[int, Counts]:
    """The counts of each category that has objects, at IoU 0.5.

    Args:
        annotations: COCO's. Detections of crowds neither count as right nor as wrong.
        results: COCO's; those of categories without objects do not count.
    """
    truth, found = _by_image_and_category(annotations), _by_image_and_category(results)
    objects: dict[int, int] = defaultdict(int)
    for (_, category), here in truth.items():
        objects[category] += sum(not one["iscrowd"] for one in here)
    # scores only: every curve below is a count of scores from a threshold on
    right: dict[int, list[float]] = defaultdict(list)
    wrong: dict[int, list[float]] = defaultdict(list)
    for place, here in found.items():
        ranked = sorted(here, key=lambda one: -one["score"])
        hits, counts = matched(ranked, truth.get(place, []))  # [detections] each
        for one, hit, does_count in zip(ranked, hits, counts, strict=True):
            if does_count:
                (right if hit else wrong)[place[1]].append(one["score"])
    return {
        category: Counts(count, np.asarray(right[category], float), np.asarray(wrong[category], float))
        for category, count in objects.items()
        if count
    }


def pooled(counts: Iterable[Counts]) -> Counts:
    """The counts of several classes as those of one."""
    each = list(counts)
    right, wrong = ([getattr(one, name) for one in each] for name in ("right_scores", "wrong_scores"))
    empty = np.zeros(0)
    return Counts(sum(one.objects for one in each), np.concatenate([empty, *right]), np.concatenate([empty, *wrong]))


def threshold_for_precision(counts: Counts, wanted: float) -> float:
    """The lowest of `SCORES` from which on the wanted share of detections is right; NaN where there is none.

    >>> float(threshold_for_precision(Counts(2, np.array([0.9, 0.5]), np.array([0.7, 0.3])), 0.6))
    0.31
    """
    # precision is not monotonic in the threshold; the lowest one keeps the most detections
    good = np.flatnonzero(counts.precision >= wanted - 1e-9)
    return float(SCORES[good[0]]) if len(good) else float("nan")


def matched(
    ranked: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]
) -> tuple[Bool[np.ndarray, " detections"], Bool[np.ndarray, " detections"]]:
    """Which detections of a class in an image are right, and which count, by COCO's rule.

    From the best score down, each takes the free object that it overlaps most; one that finds none, but lies in a
    crowd, does not count.
    """
    hits, counts = np.zeros(len(ranked), bool), np.ones(len(ranked), bool)
    if not ranked or not truth:
        return hits, counts
    crowds = np.asarray([bool(one["iscrowd"]) for one in truth])
    boxes_xywh_px = [np.asarray([one["bbox"] for one in rows], dtype=float) for rows in (ranked, truth)]
    # COCO's IoU with a crowd: the share of the detection that lies in it
    iou = coco_mask.iou(*boxes_xywh_px, crowds.astype(np.uint8).tolist())  # [detections, objects]
    free = ~crowds  # [objects]; a crowd takes any number of detections, an object one
    for row, overlaps in enumerate(iou):
        open_to = np.where(free, overlaps, 0)  # [objects]; neither crowds nor what a better detection took
        best = int(open_to.argmax())
        if open_to[best] >= MIN_IOU:
            hits[row], free[best] = True, False
        elif overlaps[crowds].max(initial=0) >= MIN_IOU:
            counts[row] = False
    return hits, counts


def best_threshold(f1: Float[np.ndarray, " thresholds"]) -> tuple[float, float]:
    """The highest F1 and its threshold: the middle of those that reach it. (0, NaN) if nothing is found at any.

    >>> best_threshold(np.where((SCORES > 0.295) & (SCORES < 0.505), 0.8, 0.5))
    (0.8, 0.4)
    """
    highest = float(np.max(f1, initial=0))
    if not highest:
        return 0.0, float("nan")
    tied = np.flatnonzero(f1 >= highest - 1e-9)  # sums of floats differ in their last digits
    return highest, float(SCORES[tied[len(tied) // 2]])


def _by_image_and_category(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["image_id"], row["category_id"]].append(row)
    return found


def _at_least(scores: Float[np.ndarray, " scores"]) -> Float[np.ndarray, " thresholds"]:
    """How many scores reach each threshold."""
    counts: np.ndarray = (len(scores) - np.searchsorted(np.sort(scores), SCORES - 1e-9)).astype(float)
    return counts


FPR_BG_LIMIT = 0.05
"""The rate at which the paper reports AP."""


def absent_scores(
    truth: Sequence[Sample], detections: Sequence[Detections]
) -> tuple[int, Float[np.ndarray, " detections"]]:
    """How many pairs of an image and a class that it does not show there are, and the scores of detections of these.

    Args:
        truth: annotated samples. Where not every class was looked for, only those known to be absent count.
        detections: one record per sample, in the same order; names that the sample's vocabulary lacks do not count.

    Returns:
        The number of pairs; the scores, highest first.
    """
    pairs, scores = 0, [np.zeros(0)]
    for sample, found in zip(truth, detections, strict=True):
        absent = {sample.vocabulary.names[c] for c in sample.known_absent_class_ids}
        pairs += len(absent)
        rows = np.asarray([name in absent for name in found.names], dtype=bool)  # [names of the record]
        scores.append(found.scores[rows[found.class_ids]])
    return pairs, np.sort(np.concatenate(scores))[::-1]


def false_positive_rate(
    pairs: int, scores: Float[np.ndarray, " detections"], score: float = DEFAULT_THRESHOLD
) -> float:
    """FPR_bg: detections of absent classes from a score on, per pair; NaN without pairs.

    >>> false_positive_rate(4, np.array([0.9, 0.3, 0.2]))
    0.5
    """
    return float((scores >= score).sum()) / pairs if pairs else math.nan


def score_above(pairs: int, scores: Float[np.ndarray, " detections"], limit: float = FPR_BG_LIMIT) -> float:
    """Detections that score more than this keep FPR_bg at the limit; NaN without pairs.

    >>> score_above(20, np.array([0.9, 0.7, 0.2]))  # one false positive is 0.05 of 20
    0.7
    """
    if not pairs:
        return math.nan
    allowed = math.floor(limit * pairs + 1e-9)  # 0.05 * 20 must count as 1
    # from the highest score on, this one is the first too many
    return float(scores[allowed]) if allowed < len(scores) else 0.0
