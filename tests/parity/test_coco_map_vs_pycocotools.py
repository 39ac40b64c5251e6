"""Our metrics equal pycocotools' on random images with crowds and objects of every size."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deixis.evaluation.coco_map import evaluate_detections
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

VOCABULARY = Vocabulary(("cat", "dog", "a class without objects", "bird"), (17, 3, 90, 4))


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    centres = rng.uniform(0, (640, 480), (count, 2))
    sides = np.exp(rng.uniform(np.log(6), np.log(300), (count, 2)))
    return np.concatenate([centres - sides / 2, centres + sides / 2], 1)


def _random_image(rng: np.random.Generator, image_id: int) -> tuple[Sample, Detections]:
    count = int(rng.integers(0, 9))
    boxes, class_ids = _boxes(rng, count), rng.choice([0, 1, 3], count)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1) * rng.uniform(0.4, 1, count)  # as a mask's area would be
    instances = Instances.build(boxes, class_ids, rng.random(count) < 0.2, areas_px=areas)
    near = np.repeat(boxes, 2, 0) + rng.normal(0, 4, (2 * count, 4))
    extra = int(rng.integers(0, 120))
    found = np.concatenate([near, _boxes(rng, extra)])
    labels = np.concatenate([np.repeat(class_ids, 2), rng.integers(0, 4, extra)]).astype(np.int64)
    scores = np.concatenate([rng.uniform(0.2, 1, len(near)), rng.uniform(0, 0.5, extra)])
    order = np.argsort(-scores)
    sample = Sample(Path("x.jpg"), (480, 640), instances, VOCABULARY, image_id)
    return sample, Detections(found[order], scores[order], labels[order], VOCABULARY.names, image_id, (480, 640))


def _pycocotools(samples: list[Sample], detections: list[Detections]) -> tuple[np.ndarray, dict[str, float]]:
    def xywh(box: np.ndarray) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    truth = COCO()
    annotations = [
        {
            "image_id": s.image_id,
            "category_id": VOCABULARY.category_ids[c],
            "bbox": xywh(b),
            "area": a,
            "iscrowd": int(k),
        }
        for s in samples
        for b, c, a, k in zip(
            s.instances.boxes_xyxy_px, s.instances.class_ids, s.instances.areas_px, s.instances.is_crowd, strict=True
        )
    ]
    truth.dataset = {
        "images": [{"id": s.image_id} for s in samples],
        "categories": [{"id": i} for i in VOCABULARY.category_ids],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
    }
    results = [
        {"image_id": d.image_id, "category_id": VOCABULARY.category_ids[c], "bbox": xywh(b), "score": float(s)}
        for d in detections
        for b, c, s in zip(d.boxes_xyxy_px, d.class_ids, d.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    by_class = {}
    for k, category in enumerate(evaluator.params.catIds):
        precision = evaluator.eval["precision"][:, :, k, 0, -1]
        if (precision > -1).any():
            by_class[VOCABULARY.names[VOCABULARY.category_ids.index(category)]] = precision[precision > -1].mean()
    return evaluator.stats, by_class


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, detections = map(list, zip(*[_random_image(rng, i + 5) for i in range(12)], strict=True))
    ours = evaluate_detections(samples, detections, VOCABULARY)
    theirs, by_class = _pycocotools(samples, detections)
    assert any(s.instances.is_crowd.any() for s in samples), "the case must hold crowds"
    assert 0.05 < theirs[0] < 0.95, "the case must be neither empty nor perfect"
    values = [ours.AP, ours.AP50, ours.AP75, ours.AP_small, ours.AP_medium, ours.AP_large, ours.AR100]
    np.testing.assert_allclose(values, [*theirs[:6], theirs[8]], atol=1e-6)
    assert ours.per_class.keys() == by_class.keys()
    for name, value in ours.per_class.items():
        assert value == pytest.approx(by_class[name], abs=1e-6)
