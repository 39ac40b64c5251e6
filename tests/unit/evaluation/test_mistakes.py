"""Mistakes by kind, label errors, confusions: on pictures whose mistakes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deixis.evaluation.analysis import analyse
from deixis.evaluation.coco_map import evaluate_detections
from deixis.evaluation.mistakes import confusion_matrix, judge, likely_label_errors, worst_images
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

CAT, DOG = 1, 2
BOX = [10.0, 10, 40, 20]  # left, top, width, height


def row(category: int, box: list[float], score: float | None = None, image: int = 1, crowd: int = 0) -> dict:
    found = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
    return {**found, "iscrowd": crowd} if score is None else {**found, "score": score}


def kinds(annotations: list[dict], results: list[dict], threshold: float = 0.3) -> list[str]:
    return sorted(one.kind for one in judge(annotations, results, lambda _: threshold).mistakes)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([row(CAT, BOX, 0.9)], []),
        ([], ["missed"]),
        ([row(CAT, BOX, 0.2)], ["missed"]),  # below its threshold
        ([row(CAT, BOX, 0.9), row(CAT, [11, 10, 40, 20], 0.8)], ["duplicate"]),
        ([row(DOG, BOX, 0.9)], ["class"]),
        ([row(CAT, [30, 10, 40, 20], 0.9)], ["place"]),  # IoU 1/3
        ([row(CAT, [100, 100, 40, 20], 0.9)], ["background", "missed"]),
        ([row(DOG, [30, 10, 40, 20], 0.9)], ["background", "missed"]),
        ([row(CAT, BOX, 0.9), row(DOG, BOX, 0.8)], ["class"]),
    ],
)
def test_each_kind(results, expected):
    assert kinds([row(CAT, BOX)], results) == expected


def test_no_objects_and_crowds():
    assert kinds([], [row(CAT, BOX, 0.9)]) == ["background"]
    crowd = [row(CAT, [0, 0, 200, 200], crowd=1)]
    assert kinds(crowd, [row(CAT, BOX, 0.9)]) == []  # neither right nor wrong
    assert kinds(crowd, [row(DOG, BOX, 0.9)]) == ["background"]


@pytest.mark.parametrize("seed", range(4))
def test_right_and_wrong_add_up(seed):
    """Every shown detection is right or one mistake; every object is found, tried for, or missed."""
    rng = np.random.default_rng(seed)

    def some(count: int, scored: bool) -> list[dict]:
        return [
            row(
                int(rng.integers(1, 4)),
                [*rng.integers(0, 60, 2).tolist(), *rng.integers(10, 40, 2).tolist()],
                float(rng.random()) if scored else None,
                image=int(rng.integers(1, 4)),
            )
            for _ in range(count)
        ]

    annotations, results = some(12, scored=False), some(30, scored=True)
    judged = judge(annotations, results, lambda _: 0.4)
    shown = [one for one in results if one["score"] >= 0.4]
    wrong = [one for one in judged.mistakes if one.kind != "missed"]
    assert len(judged.right) + len(wrong) == len(judged.counted) == len(shown)
    missed = [one for one in judged.mistakes if one.kind == "missed"]
    assert len(judged.right) + len(missed) <= len(annotations)


def test_the_matrix_has_a_background():
    annotations = [row(CAT, BOX), row(DOG, [100, 10, 40, 20]), row(DOG, [100, 100, 30, 30])]
    counted = [row(CAT, BOX, 0.9), row(CAT, [100, 10, 40, 20], 0.8), row(DOG, [10, 150, 9, 9], 0.7)]
    expected = [[1, 0, 0], [1, 0, 1], [0, 1, 0]]  # a dog found as a cat, a dog not found, a dog found in nothing
    assert confusion_matrix(annotations, counted, [CAT, DOG]).tolist() == expected
    assert confusion_matrix(annotations, [], [CAT, DOG]).tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
    assert confusion_matrix([], counted, [CAT, DOG]).tolist() == [[0, 0, 0], [0, 0, 0], [2, 1, 0]]


def test_label_errors_and_worst_images_are_ranked():
    annotations = [row(CAT, BOX), row(CAT, BOX, image=2), row(CAT, BOX, image=3), row(CAT, [9, 90, 9, 9], image=3)]
    results = [
        *(row(CAT, BOX, 0.9), row(DOG, [100, 100, 20, 20], 0.95)),  # perhaps overlooked
        row(DOG, BOX, 0.99, image=2),  # perhaps misnamed
        row(CAT, [100, 100, 20, 20], 0.4, image=3),  # not confident
    ]
    mistakes = judge(annotations, results, lambda _: 0.3).mistakes
    assert [(one.kind, one.image_id) for one in likely_label_errors(mistakes, 9)] == [("class", 2), ("background", 1)]
    assert len(likely_label_errors(mistakes, 1)) == 1
    assert worst_images(mistakes, 2) == [3, 2]  # 0.4 and two missed; 0.99


def test_an_analysis_agrees_with_the_metrics():
    names = Vocabulary(("cat", "dog"))
    rng = np.random.default_rng(0)
    truth, found = [], []
    for image in range(6):
        corners = rng.integers(0, 100, (5, 2))
        boxes = np.hstack([corners, corners + rng.integers(15, 60, (5, 2))]).astype(float)
        truth.append(Sample(Path("a.jpg"), (200, 200), Instances.build(boxes, rng.integers(0, 2, 5)), names, image))
        noisy = boxes + rng.integers(-4, 5, boxes.shape)
        scores = np.sort(rng.random(5))[::-1]
        found.append(Detections(noisy, scores, rng.integers(0, 2, 5), names.names, image))
    metrics = evaluate_detections(truth, found, names)
    analysis = analyse(truth, found, names, metrics)
    assert {one.name: one.AP for one in analysis.classes} == metrics.per_class
    assert np.mean(analysis.precision_recall["IoU 0.50"]) == pytest.approx(metrics.AP50)
    assert np.mean(analysis.precision_recall["IoU 0.75"]) == pytest.approx(metrics.AP75)
    assert max(analysis.mean_f1) == pytest.approx(metrics.F1)
    assert analysis.threshold == metrics.threshold
    assert analysis.confusion[:2].sum() == metrics.boxes
    total = sum(count for _, _, count in analysis.reliability)
    assert total == (analysis.counts.right_scores >= 0.05).sum() + (analysis.counts.wrong_scores >= 0.05).sum()
