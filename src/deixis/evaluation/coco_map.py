"""COCO mean average precision of detections, overall, by object size and by class.

The numbers are those of pycocotools (Lin et al., "Microsoft COCO", arXiv 1405.0312): AP is averaged over the IoU
thresholds 0.50, 0.55, ..., 0.95 and 101 recall points, with at most 100 detections per image. faster-coco-eval does
the matching.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from deixis.evaluation.calibration import calibration_error, fit_calibration
from deixis.evaluation.cocos_form import MAX_DETECTIONS, accumulated, detections_per_image, in_cocos_form
from deixis.evaluation.thresholds import (
    MIN_OBJECTS,
    SCORES,
    Counts,
    absent_scores,
    best_threshold,
    counts_by_class,
    false_positive_rate,
    pooled,
    score_above,
    threshold_for_precision,
)
from deixis.records import Sample, Vocabulary
from deixis.results.detections import Detections


@dataclass(frozen=True)
class DetectionMetrics:
    """COCO detection metrics, each in [0, 1]; NaN where the data has no object that the metric counts.

    Attributes:
        AP: averaged over IoU 0.50:0.95, then over the classes that have an object.
        AP50, AP75: at a single IoU threshold.
        AP_small, AP_medium, AP_large: for objects with an area below 32², in between, and above 96² pixels.
        AR100: recall averaged over IoU 0.50:0.95, with `max_detections` detections per image.
        per_class: AP by class name; a class without an object is left out.
        images: how many images were evaluated.
        boxes: how many objects they have, without crowds.
        max_detections: how many detections per image counted: COCO's 100, LVIS's 300, or the number given.
        FPR_bg: detections of score 0.3 or more per image and class that it does not show; NaN where every image shows
            every class.
        AP_at_FPR_bg: AP of the detections whose score keeps FPR_bg at 0.05 or less.
        FPR_bg_score: they score more than this.
        F1: at IoU 0.5, the mean over the classes that have an object, at `threshold`.
        threshold: the score at which that is highest, or the lowest with the precision that was asked for; NaN where
            nothing is found, or not with that precision.
        precision, recall: of all detections from `threshold` on, at IoU 0.5.
        ECE: expected calibration error of the scores; ECE_calibrated: after `calibration`, on the same data.
        class_thresholds: the same score for each class with ten objects or more.
        f1_per_class, recall_per_class: of each class with an object, at its own highest F1.
        calibration: what makes the scores mean what they say; see `evaluation.calibration`.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR100: float
    per_class: dict[str, float]
    images: int
    boxes: int
    max_detections: int = MAX_DETECTIONS
    FPR_bg: float = math.nan
    AP_at_FPR_bg: float = math.nan
    FPR_bg_score: float = math.nan
    F1: float = math.nan
    threshold: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    ECE: float = math.nan
    ECE_calibrated: float = math.nan
    class_thresholds: dict[str, float] = field(default_factory=dict)
    f1_per_class: dict[str, float] = field(default_factory=dict)
    recall_per_class: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without metrics that are NaN."""
        return without_nan(vars(self))


def evaluate_detections(
    truth: Sequence[Sample],
    detections: Sequence[Detections],
    vocabulary: Vocabulary,
    *,
    max_detections: int | None = None,
    wanted_precision: float | None = None,
) -> DetectionMetrics:
    """Score detections against annotations, both in pixels of the original images.

    Crowd annotations are ignored: missing one costs nothing, and detections inside one do not count. Boxes of a sample
    that a transform has resized are scaled back to its original size.

    Samples annotated for only some classes are scored as in LVIS (Gupta et al., arXiv 1908.03195): detections of a
    class that is neither annotated in the image nor known to be absent do not count, and those of a class that is not
    annotated exhaustively count only where they match an object. Then the best 300 detections per image are used
    instead of 100, before those that do not count are removed.

    Args:
        truth: annotated samples; their images are not read.
        detections: one record per sample, in the same order.
        vocabulary: the classes that count.
        max_detections: how many detections per image count, the best ones. By default `detections_per_image`: COCO's
            100 per class or LVIS's 300. Where an image has more objects, even perfect boxes score less than 1.
        wanted_precision: share of detections that shall be right from the thresholds on; the highest F1 if None.

    Raises:
        DataError: the two do not belong together (count, image ids), or a detected name is not in the vocabulary.

    >>> vocabulary = Vocabulary(("cat",))
    >>> sample = Sample(Path("a.jpg"), (90, 60), Instances.build([[0, 0, 20, 40]], [0]), vocabulary)
    >>> found = Detections(np.array([[0.0, 0, 20, 40]]), np.array([0.9]), np.array([0]), ("cat",))
    >>> evaluate_detections([sample], [found], vocabulary).AP
    1.0
    """
    limit = max_detections or detections_per_image(truth)
    annotations, results = in_cocos_form(truth, detections, vocabulary, max_detections=max_detections, limit=limit)
    size = {"images": len(truth), "classes": len(vocabulary), "limit": limit}
    precision, recall = accumulated(annotations, results, **size)
    averages = _averages(precision, recall, vocabulary.names)
    # categories count from 1
    counts = {vocabulary.names[c - 1]: one for c, one in sorted(counts_by_class(annotations, results).items())}
    return DetectionMetrics(
        **averages,
        images=len(truth),
        boxes=sum(int((~sample.instances.is_crowd).sum()) for sample in truth),
        max_detections=limit,
        **_on_absent_classes(
            absent_scores(truth, detections), annotations, results=results, whole_ap=averages["AP"], **size
        ),
        **_chosen_scores(counts, wanted_precision),
        f1_per_class={name: float(one.f1.max()) for name, one in counts.items()},
        recall_per_class={name: float(one.recall[one.f1.argmax()]) for name, one in counts.items()},
    )


def _averages(
    precision: Float[np.ndarray, "thresholds recalls classes areas"],
    recall: Float[np.ndarray, "thresholds classes areas"],
    names: Sequence[str],
) -> dict[str, Any]:
    """COCO's averages, overall and by class."""
    # [10 IoU thresholds, 101 recalls, classes, 4 areas]; thresholds 0 and 5 are 0.50 and 0.75, area 0 is "all"
    overall, ap50, ap75 = precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]
    return {
        "AP": _mean(overall),
        "AP50": _mean(ap50),
        "AP75": _mean(ap75),
        "AP_small": _mean(precision[..., 1]),
        "AP_medium": _mean(precision[..., 2]),
        "AP_large": _mean(precision[..., 3]),
        "AR100": _mean(recall[..., 0]),
        "per_class": {name: value for c, name in enumerate(names) if not math.isnan(value := _mean(overall[:, :, c]))},
    }


def _on_absent_classes(
    absent: tuple[int, Float[np.ndarray, " detections"]],
    annotations: list[dict[str, Any]],
    *,
    results: list[dict[str, Any]],
    whole_ap: float,
    **size: int,
) -> dict[str, Any]:
    """False positives on absent classes, of `absent_scores`, and the AP of detections that keep them rare."""
    pairs, scores = absent
    score = score_above(pairs, scores)
    # matching is greedy from the best score down, so a detection that goes changes nothing for those above it
    few_false = [result for result in results if result["score"] > score]
    if not pairs:
        ap = math.nan
    # matching costs seconds on large data: not a second time for the same detections
    elif len(few_false) == len(results):
        ap = whole_ap
    else:
        ap = _mean(accumulated(annotations, few_false, **size)[0][..., 0])
    return {"FPR_bg": false_positive_rate(pairs, scores), "AP_at_FPR_bg": ap, "FPR_bg_score": score}


def _chosen_scores(counts: Mapping[str, Counts], wanted_precision: float | None) -> dict[str, Any]:
    """The thresholds and the calibration that the detections of each class give, and what they come to."""
    if not counts:
        return {}
    all_of_them = pooled(counts.values())
    # [classes, thresholds] -> [thresholds]; the mean over classes, as in AP: frequent ones do not decide alone
    mean_f1 = np.mean([one.f1 for one in counts.values()], axis=0)
    # of few objects the best threshold is chance, and would be kept with the model
    enough = {name: one for name, one in counts.items() if one.objects >= MIN_OBJECTS}
    if wanted_precision is None:
        _, threshold = best_threshold(mean_f1)
        of_class = {name: best_threshold(one.f1)[1] for name, one in enough.items()}
    else:
        threshold = threshold_for_precision(all_of_them, wanted_precision)
        of_class = {name: threshold_for_precision(one, wanted_precision) for name, one in enough.items()}
    # position of the threshold in `SCORES`, at which all curves are sampled
    at = int(np.argmin(abs(SCORES - threshold))) if math.isfinite(threshold) else None
    calibration = fit_calibration(all_of_them)
    return {
        "F1": 0.0 if at is None else float(mean_f1[at]),
        "threshold": threshold,
        "precision": math.nan if at is None else float(all_of_them.precision[at]),
        "recall": math.nan if at is None else float(all_of_them.recall[at]),
        "ECE": calibration_error(all_of_them),
        "ECE_calibrated": calibration_error(all_of_them, calibration) if calibration else math.nan,
        "class_thresholds": without_nan(of_class),
        "calibration": calibration,
    }


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of plain values for JSON that are not NaN.

    >>> without_nan({"AP": 0.5, "AP_small": math.nan, "images": 3})
    {'AP': 0.5, 'images': 3}
    """
    return {name: value for name, value in values.items() if not (isinstance(value, float) and math.isnan(value))}


def _mean(values: Float[np.ndarray, "*any"]) -> float:
    """The mean over the entries that are not -1; NaN if there is none."""
    present = values[values > -1]
    return float(present.mean()) if present.size else math.nan
