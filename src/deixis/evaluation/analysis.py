"""What a report explains of a detector's figures: curves, calibration, confusions and mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deixis.evaluation.calibration import reliability
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.cocos_form import accumulated, detections_per_image, in_cocos_form
from deixis.evaluation.mistakes import KINDS, Mistake, confusion_matrix, judge
from deixis.evaluation.thresholds import DEFAULT_THRESHOLD, Counts, counts_by_class, pooled
from deixis.records import Sample, Vocabulary
from deixis.results.detections import Detections

RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ClassRow:
    """A class in numbers; precision and recall from its threshold on, NaN where there is nothing to divide."""

    name: str
    objects: int
    AP: float
    F1: float
    precision: float
    recall: float
    threshold: float
    mistakes: Mapping[str, int]


@dataclass(frozen=True)
class Analysis:
    """What a report explains.

    Attributes:
        precision_recall: precision at `RECALLS`, the mean over classes, by IoU ("IoU 0.50"); from faster-coco-eval.
        counts: detections of all classes, right and wrong.
        mean_f1: the mean over classes at each of `SCORES`.
        threshold: from which on detections are shown, where a class has none of its own.
        classes: one row each.
        mistakes: all of them; `image_id` counts the images from 1, `category_id` the names.
        confusion: objects by what they were found as; see `confusion_matrix`.
        reliability: (mean score, precision, detections) by bin.
    """

    names: tuple[str, ...]
    precision_recall: Mapping[str, Float[np.ndarray, " recalls"]]
    counts: Counts
    mean_f1: Float[np.ndarray, " thresholds"]
    threshold: float
    classes: Sequence[ClassRow]
    mistakes: Sequence[Mistake]
    confusion: Float[np.ndarray, "objects found"]
    reliability: Sequence[tuple[float, float, int]]
    metrics: DetectionMetrics


def analyse(
    truth: Sequence[Sample],
    detections: Sequence[Detections],
    vocabulary: Vocabulary,
    metrics: DetectionMetrics,
    thresholds: Mapping[str, float] | None = None,
) -> Analysis:
    """Explain metrics of detections; see `evaluate_detections` for the first three.

    Args:
        thresholds: of single classes; those that the metrics chose if not given.

    Raises:
        DataError: truth and detections do not belong together.
    """
    limit = metrics.max_detections
    # None keeps COCO's and LVIS's own rules for the limit, by class or by image
    given = None if limit == detections_per_image(truth) else limit
    annotations, results = in_cocos_form(truth, detections, vocabulary, max_detections=given, limit=limit)
    # [thresholds, 101 recalls, classes, areas]
    precision, _ = accumulated(annotations, results, images=len(truth), classes=len(vocabulary), limit=limit)
    overall = metrics.threshold if np.isfinite(metrics.threshold) else DEFAULT_THRESHOLD
    of_class = metrics.class_thresholds if thresholds is None else thresholds
    chosen = [of_class.get(name, overall) for name in vocabulary.names]
    judged = judge(annotations, results, lambda category: chosen[category - 1])  # categories count from 1
    counts = counts_by_class(annotations, results)
    categories = list(range(1, len(vocabulary) + 1))
    right = Counter(row["category_id"] for row in judged.right)
    shown = Counter(row["category_id"] for row in judged.counted)
    # false detections by the class that they claim, missed objects by their own
    kinds = Counter((one.category_id, one.kind) for one in judged.mistakes)
    classes = [
        ClassRow(
            name,
            counts[c].objects if c in counts else 0,
            metrics.per_class.get(name, float("nan")),
            metrics.f1_per_class.get(name, float("nan")),
            right[c] / shown[c] if shown[c] else float("nan"),
            right[c] / counts[c].objects if c in counts else float("nan"),
            chosen[c - 1],
            {kind: kinds[c, kind] for kind in KINDS},
        )
        for c, name in zip(categories, vocabulary.names, strict=True)
    ]
    everything = pooled(counts.values())
    return Analysis(
        vocabulary.names,
        # IoU 0.50 and 0.75; area 0 is "all"
        {f"IoU {0.5 + 0.05 * i:.2f}": _mean_over_classes(precision[i, :, :, 0]) for i in (0, 5)},
        everything,
        np.mean([one.f1 for one in counts.values()], axis=0) if counts else np.zeros(0),
        overall,
        classes,
        judged.mistakes,
        confusion_matrix(annotations, judged.counted, categories),
        reliability(everything),
        metrics,
    )


def _mean_over_classes(precision: Float[np.ndarray, "recalls classes"]) -> Float[np.ndarray, " recalls"]:
    """The mean over the classes that have objects; empty where none has."""
    present = precision[:, (precision > -1).all(0)]  # [recalls, classes] -> [recalls, classes with objects]
    mean: np.ndarray = present.mean(1) if present.shape[1] else np.zeros(0)
    return mean
