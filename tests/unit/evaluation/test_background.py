"""FPR_bg: detections of classes that an image does not show."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deixis.evaluation.coco_map import evaluate_detections
from deixis.evaluation.thresholds import absent_scores, false_positive_rate, score_above
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

NAMES = Vocabulary(("cat", "dog", "cow"))
BOX = [0.0, 0, 20, 40]
ELSEWHERE = [50.0, 20, 90, 30]


def image(*classes: int, **more) -> Sample:
    """With one object of each class, all in one place."""
    return Sample(Path("a.jpg"), (60, 100), Instances.build([BOX] * len(classes), list(classes)), NAMES, **more)


def found(*of: tuple[int, float], box=BOX) -> Detections:
    classes, scores = [c for c, _ in of], [score for _, score in of]
    boxes = np.asarray([box] * len(of), dtype=float).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, float), np.asarray(classes, dtype=np.int64), NAMES.names)


def test_only_classes_that_the_image_does_not_show_count():
    truth = [image(0), image(0, 1)]
    detections = [found((0, 0.9), (1, 0.8), (2, 0.2)), found((1, 0.7), (2, 0.6))]
    pairs, scores = absent_scores(truth, detections)
    assert pairs == 3  # dog and cow in the first, cow in the second
    assert scores.tolist() == [0.8, 0.6, 0.2]
    assert false_positive_rate(pairs, scores) == pytest.approx(2 / 3)


def test_a_second_box_of_a_shown_class_is_no_background():
    assert absent_scores([image(0, 1, 2)], [found((0, 0.9), (0, 0.8), box=ELSEWHERE)]) == (0, pytest.approx([]))


def test_a_crowd_shows_its_class():
    crowd = Sample(Path("a.jpg"), (60, 100), Instances.build([BOX], [1], [True]), NAMES)
    assert absent_scores([crowd], [found((1, 0.9))])[0] == 2


@pytest.mark.parametrize(
    ("more", "pairs", "counted"),
    [
        ({"absent_class_ids": frozenset({2})}, 1, [0.6]),
        ({"absent_class_ids": frozenset()}, 0, []),
        ({"not_exhaustive_class_ids": frozenset({0})}, 2, [0.7, 0.6]),
    ],
)
def test_of_federated_data_only_what_was_looked_for_counts(more, pairs, counted):
    count, scores = absent_scores([image(0, **more)], [found((1, 0.7), (2, 0.6))])
    assert (count, scores.tolist()) == (pairs, counted)


def test_images_without_objects_count_for_every_class():
    metrics = evaluate_detections([image(), image(0)], [found((1, 0.31), (2, 0.29)), found((0, 0.9))], NAMES)
    assert metrics.FPR_bg == pytest.approx(1 / 5)


def test_the_limit_of_the_rate_drops_the_objects_that_score_less():
    """20 pairs allow one false positive, of 0.8; the next, of 0.6, sets the score. A loop over thresholds agrees."""
    truth = [image(0) for _ in range(10)]
    detections = [found((0, 0.5 + i / 20)) for i in range(8)] + [found((1, 0.8)), found((2, 0.6))]
    metrics = evaluate_detections(truth, detections, NAMES)
    assert metrics.FPR_bg_score == 0.6
    remaining = [one.above(0.6000001) for one in detections]
    assert metrics.AP_at_FPR_bg == evaluate_detections(truth, remaining, NAMES).AP < metrics.AP
    by_hand = [
        t for t in np.arange(0.05, 1, 0.05) if sum((d.scores[d.class_ids > 0] > t).sum() for d in detections) <= 1
    ]
    assert min(by_hand) == pytest.approx(0.6)


def test_few_false_positives_drop_nothing():
    metrics = evaluate_detections([image(0)] * 10, [found((0, 0.9))] * 9 + [found((1, 0.2))], NAMES)
    assert (metrics.FPR_bg_score, metrics.AP_at_FPR_bg) == (0, metrics.AP)


def test_without_absent_classes_there_is_no_figure():
    metrics = evaluate_detections([image(0, 1, 2)], [found((0, 0.9))], NAMES)
    assert not {"FPR_bg", "AP_at_FPR_bg", "FPR_bg_score"} & metrics.as_dict().keys()


def test_equal_scores_stand_or_fall_together():
    assert score_above(20, np.array([0.7, 0.7])) == 0.7
    assert math.isnan(score_above(0, np.zeros(0)))


def test_other_names_of_the_detections_do_not_count():
    other = Detections(np.zeros((1, 4)), np.array([0.9]), np.array([1]), ("cat", "horse"))
    assert absent_scores([image(0)], [other])[1].tolist() == []
