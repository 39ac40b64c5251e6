"""COCO metrics on cases small enough to know the answer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from deixis.errors import DataError
from deixis.evaluation.coco_map import evaluate_detections
from deixis.evaluation.cocos_form import detections_per_image
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

CAT_DOG = Vocabulary(("cat", "dog"), (17, 18))
SIZE_HW = (100, 300)
Boxes = list[list[float]]
BY_CLASS = ("per_class", "class_thresholds", "f1_per_class", "recall_per_class", "calibration")


def _sample(boxes: Boxes, class_ids: list[int], image_id: int = 0, crowd: list[bool] | None = None) -> Sample:
    return Sample(
        Path("a.jpg"), SIZE_HW, Instances.build(np.asarray(boxes, float), class_ids, crowd), CAT_DOG, image_id
    )


def _found(
    boxes: Boxes,
    class_ids: list[int],
    scores: list[float] | None = None,
    image_id: int = 0,
    names: tuple[str, ...] = CAT_DOG.names,
) -> Detections:
    return Detections(
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.linspace(0.9, 0.5, len(boxes)) if scores is None else np.asarray(scores),
        np.asarray(class_ids, dtype=np.int64),
        names,
        image_id,
        SIZE_HW,
    )


def test_no_detections_score_zero() -> None:
    metrics = evaluate_detections([_sample([[0, 0, 40, 10]], [0])], [_found([], [])], CAT_DOG)
    assert (metrics.AP, metrics.AP50, metrics.AP75, metrics.AR100) == (0, 0, 0, 0)
    assert metrics.per_class == {"cat": 0.0}
    assert (metrics.images, metrics.boxes) == (1, 1)


@pytest.mark.parametrize("images", [0, 1])
def test_nothing_annotated_has_no_score(images: int) -> None:
    metrics = evaluate_detections([_sample([], [])] * images, [_found([[0, 0, 9, 9]], [0])] * images, CAT_DOG)
    assert math.isnan(metrics.AP)
    background = {"FPR_bg": 0.5, "FPR_bg_score": 0.9} if images else {}  # "cat" is one of two absent classes
    counts = {"images": images, "boxes": 0, "max_detections": 100}
    assert metrics.as_dict() == {key: {} for key in BY_CLASS} | counts | background


def test_long_thin_box_found_exactly_scores_one() -> None:
    box = [[100.0, 20, 140, 30]]  # 40 wide, 10 high: swapped sides would miss it
    metrics = evaluate_detections([_sample(box, [1])], [_found(box, [1])], CAT_DOG)
    assert (metrics.AP, metrics.AP75, metrics.AP_small, metrics.AR100) == (1, 1, 1, 1)
    assert math.isnan(metrics.AP_medium)
    assert math.isnan(metrics.AP_large)


def test_class_without_truth_does_not_count() -> None:
    box = [[0.0, 0, 40, 10]]
    metrics = evaluate_detections([_sample(box, [0])], [_found(box * 2, [0, 1])], CAT_DOG)
    assert metrics.AP == 1
    assert metrics.per_class == {"cat": 1.0}


def test_half_found_scores_half() -> None:
    truth = _sample([[0, 0, 40, 10], [0, 50, 40, 60]], [0, 1])
    metrics = evaluate_detections([truth], [_found([[0, 0, 40, 10]], [0])], CAT_DOG)
    assert metrics.AP == 0.5
    assert metrics.per_class == {"cat": 1.0, "dog": 0.0}


def test_crowd_is_neither_missed_nor_a_false_alarm() -> None:
    boxes = [[0, 0, 40, 10], [100, 0, 300, 100]]
    crowd = _sample(boxes, [0, 0], crowd=[False, True])
    inside = [[110, 10, 150, 40], [160, 10, 200, 40], [0, 0, 40, 10]]
    metrics = evaluate_detections([crowd], [_found(inside, [0, 0, 0])], CAT_DOG)
    assert (metrics.AP, metrics.AR100, metrics.boxes) == (1, 1, 1)
    plain = evaluate_detections([_sample(boxes, [0, 0])], [_found(inside, [0, 0, 0])], CAT_DOG)
    assert plain.AP < 0.5, "without the flag the same detections are wrong"


def test_size_is_the_annotations_area() -> None:
    instances = Instances.build([[0.0, 0.0, 100.0, 100.0]], [0], areas_px=[900.0])  # a thin mask in a large box
    sample = Sample(Path("a.jpg"), SIZE_HW, instances, CAT_DOG)
    metrics = evaluate_detections([sample], [_found([[0, 0, 100, 100]], [0])], CAT_DOG)
    assert metrics.AP_small == 1
    assert math.isnan(metrics.AP_large)


def test_resized_truth_is_scaled_back_to_the_original_frame() -> None:
    instances = Instances.build([[10.0, 5.0, 20.0, 10.0]], [0])
    sample = Sample(Path("a.jpg"), (50, 60), instances, CAT_DOG, original_size_hw=(100, 300))
    metrics = evaluate_detections([sample], [_found([[50, 10, 100, 20]], [0])], CAT_DOG)
    assert metrics.AP == 1
    assert metrics.AP_small == 1


def test_names_in_another_order_are_matched_by_name() -> None:
    box = [[0.0, 0, 40, 10]]
    metrics = evaluate_detections([_sample(box, [0])], [_found(box, [1], names=("dog", "cat"))], CAT_DOG)
    assert metrics.per_class == {"cat": 1.0}


def test_equal_image_ids_do_not_mix_images() -> None:
    here, there = [[0.0, 0, 40, 10]], [[100.0, 50, 160, 90]]
    metrics = evaluate_detections(
        [_sample(here, [0]), _sample(there, [0])], [_found(there, [0]), _found(here, [0])], CAT_DOG
    )
    assert metrics.AP == 0


def test_only_the_best_hundred_detections_count() -> None:
    box = [[0.0, 0, 40, 10]]
    wrong = [[float(i), 50, i + 30.0, 99] for i in range(100)]
    truth = [_sample(box, [0])]
    assert evaluate_detections(truth, [_found(wrong + box, [0] * 101)], CAT_DOG).AP == 0
    assert evaluate_detections(truth, [_found(wrong[1:] + box, [0] * 100)], CAT_DOG).AP > 0


def test_metrics_are_json() -> None:
    box = [[0.0, 0, 40, 10]]
    metrics = evaluate_detections([_sample(box, [0])], [_found(box, [0])], CAT_DOG)
    assert json.loads(json.dumps(metrics.as_dict(), allow_nan=False))["AP"] == 1


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_detections([_sample([[0, 0, 40, 10]], [0])], [_found([[0, 0, 40, 10]], [0])], CAT_DOG)
    assert capfd.readouterr() == ("", "")


def test_what_does_not_belong_together_is_an_error() -> None:
    with pytest.raises(DataError, match="0 detection records for 1 images"):
        evaluate_detections([_sample([], [])], [], CAT_DOG)
    with pytest.raises(DataError, match="detections are of image 4, expected 3"):
        evaluate_detections([_sample([], [], 3)], [_found([], [], image_id=4)], CAT_DOG)
    with pytest.raises(DataError, match="bird"):
        evaluate_detections([_sample([], [])], [_found([], [], names=("cat", "bird"))], CAT_DOG)


def _judged(boxes: Boxes, class_ids: list[int], absent: set[int], not_exhaustive: set[int] | None = None) -> Sample:
    return _sample(boxes, class_ids).evolve(
        absent_class_ids=frozenset(absent), not_exhaustive_class_ids=frozenset(not_exhaustive or set())
    )


@pytest.mark.parametrize(("absent", "expected"), [(set(), 1.0), ({0}, 0.5), (None, 0.5)])
def test_a_class_that_nobody_looked_for_is_not_a_false_alarm(absent: set[int] | None, expected: float) -> None:
    """Image one shows a dog, and the detector sees a cat in it; the cat of image two comes after, by score."""
    cat, dog = [100.0, 0, 140, 10], [0.0, 50, 40, 60]
    first = _sample([dog], [1]) if absent is None else _judged([dog], [1], absent)
    found = [_found([cat, dog], [0, 1], [0.99, 0.9]), _found([cat], [0], [0.5])]
    metrics = evaluate_detections([first, _sample([cat], [0])], found, CAT_DOG)
    assert metrics.per_class == {"cat": pytest.approx(expected), "dog": 1.0}


def test_unmatched_detections_of_a_class_not_annotated_exhaustively_are_ignored() -> None:
    cats = [[0.0, 0, 40, 10], [100.0, 0, 140, 10], [-20.0, 80, 60, 120]]  # the last one leaves the image
    found = [_found(cats[::-1], [0, 0, 0], [0.99, 0.95, 0.5])]
    assert pytest.approx(1 / 3, abs=0.01) == evaluate_detections([_judged([cats[0]], [0], {1})], found, CAT_DOG).AP
    metrics = evaluate_detections([_judged([cats[0]], [0], {1}, {0})], found, CAT_DOG)
    assert (metrics.AP, metrics.AR100, metrics.boxes) == (1, 1, 1)


def test_judged_classes_are_matched_by_name() -> None:
    sample = Sample(
        Path("a.jpg"), SIZE_HW, Instances.build([[0.0, 0, 40, 10]], [0]), Vocabulary(("dog", "cat")), 0,
        absent_class_ids=frozenset({1}),
    )  # fmt: skip
    found = _found([[0, 0, 40, 10], [100, 0, 140, 10]], [1, 0])
    assert evaluate_detections([sample], [found], CAT_DOG).per_class == {"dog": 1.0}


def _scattered(count: int) -> Boxes:
    return [[float(3 * i), 0, 3.0 * i + 2, 2] for i in range(count)]


def test_federated_images_are_judged_by_their_best_300_detections() -> None:
    """Most of an image's best are of classes that nobody looked for."""
    dog = [290.0, 40, 299, 80]
    boxes = [*_scattered(90), *_scattered(60), dog]
    found = _found(boxes, [0] * 150 + [1])
    sample = _judged([dog], [1], set())
    assert evaluate_detections([sample], [found], CAT_DOG).per_class["dog"] == pytest.approx(1.0)
    assert detections_per_image([sample]) == 300
    assert detections_per_image([_sample([dog], [1])]) == 100


def test_detections_beyond_the_300th_do_not_count() -> None:
    dog = [290.0, 40, 299, 80]
    boxes = [*_scattered(90), *_scattered(90), *_scattered(90), *_scattered(30), dog]
    found = _found(boxes, [0] * 300 + [1])
    assert evaluate_detections([_judged([dog], [1], set())], [found], CAT_DOG).per_class["dog"] == 0
