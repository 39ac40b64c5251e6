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

from deixis.errors import DataError
from deixis.evaluation.background import absent_scores, false_positive_rate, score_above
from deixis.evaluation.calibration import calibration_error, fit_calibration
from deixis.evaluation.thresholds import (
    MIN_OBJECTS,
    SCORES,
    Counts,
    best_threshold,
    counts_by_class,
    pooled,
    threshold_for_precision,
)
from deixis.records import Sample, Vocabulary
from deixis.results.detections import Detections

MAX_DETECTIONS = 100
MAX_DETECTIONS_FEDERATED = 300  # LVIS's limit: with a thousand classes, most of the best 100 would not count
SMALL_AREA_PX, MEDIUM_AREA_PX = 32**2, 96**2  # an object is small below the first, large above the second
AREA_RANGES_PX = {
    "small": [0, SMALL_AREA_PX],
    "medium": [SMALL_AREA_PX, MEDIUM_AREA_PX],
    "large": [MEDIUM_AREA_PX, 1e10],
}


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


def detections_per_image(truth: Sequence[Sample]) -> int:
    """How many detections per image to ask for: COCO's 100, or LVIS's 300 where some classes are not annotated."""
    federated = any(sample.absent_class_ids is not None or sample.not_exhaustive_class_ids for sample in truth)
    return MAX_DETECTIONS_FEDERATED if federated else MAX_DETECTIONS


def in_cocos_form(
    truth: Sequence[Sample],
    detections: Sequence[Detections],
    vocabulary: Vocabulary,
    *,
    max_detections: int | None,
    limit: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's annotations, without ids, and results, those that count."""
    if len(truth) != len(detections):
        raise DataError(
            f"{len(detections)} detection records for {len(truth)} images; expected one per image, in order"
        )
    annotations, results = [], []
    for position, (sample, found) in enumerate(zip(truth, detections, strict=True), start=1):
        if sample.image_id != found.image_id:
            raise DataError(
                f"{sample.source or position}: detections are of image {found.image_id}, expected {sample.image_id}"
            )
        annotations += _annotations(sample, position, vocabulary) + _ignore_regions(sample, position, vocabulary)
        judged = _judged_categories(sample, vocabulary)
        # COCO limits detections per class, LVIS per image.
        by_class = max_detections is None and limit == MAX_DETECTIONS
        kept = _results(found if by_class else found.best(limit), position, vocabulary)
        results += [result for result in kept if judged is None or result["category_id"] in judged]
    return annotations, results


def _annotations(sample: Sample, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One image's objects as COCO annotations, without ids."""
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    scale_yx = np.divide(sample.original_size_hw, sample.size_hw)
    boxes_xyxy_px = sample.instances.boxes_xyxy_px * np.tile(scale_yx[::-1], 2)  # times (x, y, x, y)
    # height by width: an area grows with both
    areas_px = sample.instances.areas_px * scale_yx.prod()
    return [
        {
            "image_id": image_id,
            "category_id": rows[c] + 1,  # counted from 1, here and in all that follows
            "bbox": _xywh(box),
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for box, c, area, crowd in zip(
            boxes_xyxy_px, sample.instances.class_ids, areas_px, sample.instances.is_crowd, strict=True
        )
    ]


def _results(found: Detections, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One image's detections as COCO results."""
    rows = _vocabulary_rows(found.names, vocabulary, f"detections of image {found.image_id}")
    return [
        {"image_id": image_id, "category_id": rows[c] + 1, "bbox": _xywh(box), "score": float(score)}
        for box, c, score in zip(found.boxes_xyxy_px, found.class_ids, found.scores, strict=True)
    ]


def _judged_categories(sample: Sample, vocabulary: Vocabulary) -> set[int] | None:
    """COCO ids of the classes whose detections count in an image; None for all of them."""
    if sample.absent_class_ids is None:
        return None
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    # LVIS, arXiv 1908.03195: a class is judged where the image is in its positive or its negative set
    return {rows[c] + 1 for c in sample.absent_class_ids | sample.present_class_ids}


def _ignore_regions(sample: Sample, image_id: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """A crowd far larger than the image for each class not annotated exhaustively, so that unmatched detections do not
    count."""
    if not sample.not_exhaustive_class_ids:
        return []
    rows = _vocabulary_rows(sample.vocabulary.names, vocabulary, sample.source)
    return [
        {"image_id": image_id, "category_id": rows[c] + 1, "bbox": [-1e6, -1e6, 2e6, 2e6], "area": 4e12, "iscrowd": 1}
        for c in sorted(sample.not_exhaustive_class_ids)
    ]


def _vocabulary_rows(names: tuple[str, ...], vocabulary: Vocabulary, where: str) -> list[int]:
    """The vocabulary's index of each name."""
    if names == vocabulary.names:
        return list(range(len(names)))
    index = {name: i for i, name in enumerate(vocabulary.names)}
    unknown = [name for name in names if name not in index]
    if unknown:
        raise DataError(f"{where}: class names {unknown} are not among the evaluated {list(vocabulary.names)}")
    return [index[name] for name in names]


def _xywh(box_xyxy_px: Float[np.ndarray, " 4"]) -> list[float]:
    """COCO's box: left, top, width, height."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy_px)
    return [x0, y0, x1 - x0, y1 - y0]


def accumulated(
    annotations: list[dict[str, Any]], results: list[dict[str, Any]], *, images: int, classes: int, limit: int
) -> tuple[Float[np.ndarray, "thresholds recalls classes areas"], Float[np.ndarray, "thresholds classes areas"]]:
    """COCO's precision and recall, -1 where there is no object; the areas are all, small, medium and large."""
    if not images or not annotations:
        return np.full((10, 101, classes, 4), -1.0), np.full((10, classes, 4), -1.0)
    # Imported here, so that reading metrics does not load the C++ evaluator.
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    numbered = [{"id": i, **annotation} for i, annotation in enumerate(annotations, start=1)]  # id 0 means unmatched
    dataset = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, classes + 1)],
        "annotations": numbered,
    }
    truth = COCO(dataset, print_function=_silent)
    evaluator = COCOeval_faster(
        truth, truth.loadRes(results), "bbox", ranges=AREA_RANGES_PX, print_function=_silent, separate_eval=True
    )
    # one limit in place of COCO's 1, 10 and 100: the figures of the others are not reported
    evaluator.params.maxDets = [limit]
    evaluator.evaluate()
    evaluator.accumulate()
    # the last axis is `maxDets`: one limit
    return np.asarray(evaluator.eval["precision"])[..., 0], np.asarray(evaluator.eval["recall"])[..., 0]


def _mean(values: Float[np.ndarray, "*any"]) -> float:
    """The mean over the entries that are not -1; NaN if there is none."""
    present = values[values > -1]
    return float(present.mean()) if present.size else math.nan


def _silent(*_: object) -> None:
    """Discards what faster-coco-eval prints."""
