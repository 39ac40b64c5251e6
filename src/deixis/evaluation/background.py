"""Detections of classes that an image does not show: how many there are, and the score that keeps them few.

FPR_bg counts false positives per image and absent class, as in "attention sinks" for open-vocabulary detectors (ICLR
2026, openreview jUuXNrG7wh). COCO's AP hardly notices them: a class that is looked for in the right images alone scores
the same as one that is "found" in all others too, below the scores of its objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from deixis.evaluation.thresholds import DEFAULT_THRESHOLD
from deixis.records import Sample
from deixis.results.detections import Detections

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
