"""A small review: three pictures, labels, and what a model found in them; no model is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.results.detections import Detections
from deixis.review.build import build_review
from deixis.review.predicted import Predictions
from deixis.review.store import Store

NAMES = ("cat", "<b>dog</b>", "größe")
SIZE_HW = (40, 60)
BOXES = {1: [[2.0, 3, 20, 33]], 2: [[5.0, 5, 25, 15], [30, 10, 50, 35]], 3: []}
CLASSES = {1: [0], 2: [1, 0], 3: []}


def small_set(folder: Path) -> SampleList:
    """Picture 1 has a cat, 2 a dog and a cat, 3 nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in BOXES:
        file = folder / f"{number}.png"
        Image.fromarray(np.full((*SIZE_HW, 3), 60 * number, np.uint8)).save(file)
        instances = Instances.build(BOXES[number], CLASSES[number])
        samples.append(Sample(file, SIZE_HW, instances, Vocabulary(NAMES, (7, 3, 5)), 10 * number))
    return SampleList(tuple(samples), Vocabulary(NAMES, (7, 3, 5)), "small")


def predictions() -> Predictions:
    """Of picture 1 the cat, well; of 2 the dog as a cat; in 3 a cat that nobody labelled."""
    found = {
        1: ([[2.0, 3, 20, 32]], [0.9], [0]),
        2: ([[5.0, 5, 25, 16]], [0.8], [0]),
        3: ([[10.0, 10, 30, 30], [40.0, 2, 58, 20]], [0.7, 0.2], [0, 2]),
    }
    records = [
        Detections(np.array(boxes), np.array(scores), np.array(classes), NAMES, number, SIZE_HW)
        for number, (boxes, scores, classes) in found.items()
    ]
    return Predictions("runs/a", records, dict.fromkeys(NAMES, 0.3))


def small_review(folder: Path, with_model: bool = True) -> Store:
    """The review in `review.db` of a folder, its pictures in `images/`."""
    data = small_set(folder / "images")
    return build_review(folder / "review.db", data, source="small", predictions=predictions() if with_model else None)
