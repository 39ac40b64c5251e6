"""Thresholds at the highest F1."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deixis.evaluation.coco_map import DetectionMetrics, evaluate_detections
from deixis.evaluation.thresholds import SCORES, best_threshold, counts_by_class, matched
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

NAMES = Vocabulary(("cat", "dog"))
PLACES = np.asarray([[20.0 * i, 0, 20 * i + 15, 40] for i in range(12)])


def measured(scores: list[tuple[float, bool]], objects: int = 12, of_class: int = 0) -> DetectionMetrics:
    """Metrics of an image with some cats, of which detections find one each, or nothing."""
    truth = Sample(Path("a.jpg"), (60, 300), Instances.build(PLACES[:objects], [of_class] * objects), NAMES)
    right = iter(PLACES)
    boxes = np.asarray([next(right) if true else [0, 45, 9, 59] for _, true in scores], float)
    classes = np.full(len(scores), of_class)
    found = Detections(boxes, np.asarray([s for s, _ in scores]), classes, NAMES.names)
    return evaluate_detections([truth], [found], NAMES)


def f1_by_hand(scores: list[tuple[float, bool]], objects: int, threshold: float) -> float:
    kept = [true for score, true in scores if score >= threshold]
    return 2 * sum(kept) / (len(kept) + objects)


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    scores = [(float(score), bool(rng.random() < score)) for score in rng.random(12)]
    metrics = measured(scores)
    best = max(f1_by_hand(scores, 12, threshold) for threshold in SCORES)
    assert f1_by_hand(scores, 12, metrics.threshold) == pytest.approx(best, abs=1e-6)
    assert pytest.approx(best) == metrics.F1
    assert metrics.class_thresholds == {"cat": metrics.threshold}


def test_the_middle_between_right_and_wrong_is_chosen():
    metrics = measured([(0.8, True)] * 12 + [(0.2, False)] * 3)
    assert metrics.F1 == 1
    assert 0.45 < metrics.threshold < 0.55


def test_few_objects_have_no_threshold_of_their_own():
    metrics = measured([(0.8, True)] * 9, objects=9)
    assert (metrics.class_thresholds, metrics.threshold > 0) == ({}, True)


def test_a_class_without_objects_does_not_lower_the_mean():
    assert measured([(0.8, True)] * 12).F1 == 1


def test_nothing_found_has_no_threshold():
    metrics = measured([(0.8, False)] * 3)
    assert metrics.F1 == 0
    assert "threshold" not in metrics.as_dict()
    assert metrics.class_thresholds == {}


def test_a_detection_in_a_crowd_does_not_count():
    crowd = Sample(Path("a.jpg"), (60, 300), Instances.build(PLACES[:2], [0, 0], [False, True]), NAMES)
    boxes = np.concatenate([PLACES[:2], PLACES[:1]])
    found = Detections(boxes, np.asarray([0.9, 0.8, 0.7]), np.zeros(3, dtype=np.int64), NAMES.names)
    metrics = evaluate_detections([crowd], [found], NAMES)
    assert (metrics.F1, metrics.threshold > 0.7) == (1, True)


@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_of_cocos_evaluation(seed):
    """In a crowded image of overlapping boxes: the same detections are right, wrong, or do not count."""
    rng = np.random.default_rng(seed)
    truth, detections = (rng.integers(0, 40, (count, 2)) for count in (12, 30))  # left, top
    crowds = (rng.random(12) < 0.2).astype(int).tolist()

    def row(box, **more):
        return {"image_id": 1, "category_id": 1, "bbox": [float(v) for v in (*box, 20, 20)], **more}

    annotations = [row(box, id=i + 1, area=400.0, iscrowd=crowds[i]) for i, box in enumerate(truth)]
    ranked = [row(box, score=0.9 - i / 100) for i, box in enumerate(detections)]
    theirs = COCO()
    theirs.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.createIndex()
        evaluator = COCOeval(theirs, theirs.loadRes([dict(one) for one in ranked]), "bbox")
        evaluator.evaluate()
    (judged,) = [one for one in evaluator.evalImgs if one and one["aRng"] == [0, 1e10]]
    hits, counts = matched(ranked, annotations)
    ignored = judged["dtIgnore"][0].astype(bool)
    np.testing.assert_array_equal(counts, ~ignored)
    np.testing.assert_array_equal(hits, (judged["dtMatches"][0] > 0) & ~ignored)
    assert 0 < hits.sum() < len(hits)


def test_no_curve_has_no_threshold():
    assert counts_by_class([], []) == {}
    assert math.isnan(best_threshold(np.zeros(len(SCORES)))[1])


def test_thresholds_for_a_wanted_precision():
    scores = [(0.9, True)] * 6 + [(0.6, False)] * 2 + [(0.5, True)] * 6 + [(0.2, False)] * 9
    truth = Sample(Path("a.jpg"), (60, 300), Instances.build(PLACES, [0] * 12), NAMES)
    right = iter(PLACES)
    boxes = np.asarray([next(right) if true else [0, 45, 9, 59] for _, true in scores], float)
    found = Detections(boxes, np.asarray([s for s, _ in scores]), np.zeros(len(scores), np.int64), NAMES.names)
    metrics = evaluate_detections([truth], [found], NAMES, wanted_precision=0.8)
    assert (metrics.threshold, metrics.precision, metrics.recall) == (0.21, 12 / 14, 1.0)
    assert metrics.class_thresholds == {"cat": 0.21}
    assert evaluate_detections([truth], [found], NAMES, wanted_precision=0.95).threshold == 0.61
    assert "threshold" not in evaluate_detections([truth], [found[6:8]], NAMES, wanted_precision=0.95).as_dict()
