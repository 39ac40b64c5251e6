"""The threshold below which masks are left empty: fitted on validation data, kept with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deixis.evaluation.presence import MIN_PHRASES, emptied_below, presence_scores
from deixis.inference.refer.segmenter import Segmenter
from deixis.refer_records import ReferSample, Segmentation
from deixis.reporting.metrics_file import read_records

Answers = Sequence[Sequence[Segmentation]]


@contextmanager
def every_mask_shown(segmenter: Segmenter) -> Iterator[None]:
    """Inside, no mask is left empty for its object's low probability."""
    threshold, segmenter.threshold = segmenter.threshold, 0.0
    try:
        yield
    finally:
        segmenter.threshold = threshold


def fit_threshold(segmenter: Segmenter, truth: Sequence[ReferSample], shown: Answers) -> dict[str, Any]:
    """Give the segmenter the threshold that suits these phrases; what to log of it.

    Nothing is fitted where the model takes every object for present, or where phrases of either kind are too few.

    Args:
        shown: the answers with every mask shown.
    """
    if segmenter.bundle.behaviour != "deixis":
        return {}
    scores = presence_scores(truth, shown)
    if scores.why_not_fitted():
        return {}
    segmenter.threshold = scores.best_threshold()
    return {"presence_threshold": segmenter.threshold, "presence_curve": scores.curve().as_dict()}


def emptied(segmenter: Segmenter, shown: Answers) -> list[list[Segmentation]]:
    """The answers as the segmenter's threshold leaves them."""
    return [emptied_below(found, segmenter.threshold) for found in shown]


def last_threshold(log: Path, default: float) -> float:
    """The threshold of a run's last evaluation, from its `metrics.jsonl`, for a run that is resumed.

    Raises:
        DataError: the file cannot be read.
    """
    found = [r["presence_threshold"] for r in read_records(log) if "presence_threshold" in r] if log.exists() else []
    return float(found[-1]) if found else default


def threshold_line(metrics: Mapping[str, Any], threshold: float) -> str:
    """What to print of the threshold in use, from the metrics of the data that it was, or was not, fitted on."""
    if "presence_threshold" in metrics:
        return (
            f"presence threshold {threshold:.3f}, fitted: N_acc {metrics['N_acc']:.3f} (phrases without an object left "
            f"empty), T_acc {metrics['T_acc']:.3f} (others not left empty)"
        )
    absent = metrics.get("by_sizes", {}).get("absent", {}).get("phrases", 0)
    return (
        f"presence threshold {threshold:.3f}, not fitted: of {metrics['phrases']} phrases {absent} have no object, and "
        f"at least {MIN_PHRASES} with and without one are needed"
    )
