"""What a model found, beside what is labelled: scores of labels, objects to judge, and the order of the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deixis.data.formats.review.read import DONE
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.results.detections import Detections
from deixis.review.queue import KINDS, Worth, measure_worth, same_objects, summed
from deixis.review.store import CORNERS, Store, insert_object


@dataclass(frozen=True)
class Predictions:
    """What a model found: one record per image, of any score.

    Attributes:
        thresholds: of each class name, the score from which detections are objects to review.
    """

    model: str
    found: Sequence[Detections]
    thresholds: Mapping[str, float]


def add_predictions(store: Store, images: Sequence[int], predictions: Predictions) -> None:
    """Replace what a model found in some images and nobody judged, inside a transaction; the queue is ordered anew."""
    ids = {row["name"]: row["id"] for row in store.rows("SELECT id, name FROM classes")}
    thresholds = {ids[name]: score for name, score in predictions.thresholds.items() if name in ids}
    scene = _Scene()
    for image, found in zip(images, predictions.found, strict=True):
        store.write("DELETE FROM objects WHERE image = ? AND origin = 'model' AND status = 'open'", (image,))
        rows = store.rows("SELECT * FROM objects WHERE image = ? AND status NOT IN ('rejected', 'deleted')", (image,))
        labels = [_coco(image, ids[row["label"]], [row[name] for name in CORNERS], crowd=row["crowd"]) for row in rows]
        results = [_coco(image, ids[one.label], one.box_xyxy_px, score=one.score) for one in found if one.label in ids]
        # `same_objects` gives each label to the best detection, so these come in order of score.
        results.sort(key=lambda row: -row["score"])
        scene.annotations += labels
        scene.results += results
        if store.row("images", image)["labelled"]:
            scene.labelled.add(image)
        _merge(store, rows, labels, results, thresholds=thresholds, model=predictions.model)
    worth = measure_worth(scene.annotations, scene.results, thresholds, frozenset(scene.labelled))
    rank(store, {image: worth.get(image, Worth()) for image in images})


@dataclass
class _Scene:
    """All images in COCO's form, to be judged together."""

    annotations: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    labelled: set[int] = field(default_factory=set)


def _merge(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    *,
    thresholds: Mapping[int, float],
    model: str,
) -> None:
    """Labels get the score of what shows them; what shows none becomes an object."""
    pairs = same_objects(labels, results)
    for place, row in enumerate(rows):
        score = results[pairs[place]]["score"] if place in pairs else None
        # A label that no detection shows is most worth a look.
        worth = 1.0 if score is None else 1 - score
        store.write("UPDATE objects SET score = ?, model = ?, worth = ? WHERE id = ?", (score, model, worth, row["id"]))
    names = {row["id"]: row["name"] for row in store.rows("SELECT id, name FROM classes")}
    used = set(pairs.values())
    for place, one in enumerate(results):
        if place in used or one["score"] < thresholds[one["category_id"]]:
            continue
        x, y, width, height = one["bbox"]
        box = [x, y, x + width, y + height]
        insert_object(
            store,
            one["image_id"],
            names[one["category_id"]],
            box,
            origin="model",
            score=one["score"],
            model=model,
            worth=one["score"],
        )


def _coco(image: int, category: int, box: Sequence[float], score: float = 0.0, crowd: int = 0) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
        "iscrowd": crowd,
    }


def rank(store: Store, found: Mapping[int, Worth]) -> None:
    """Write what speaks for each image, and the order of the queue."""
    stored = {row["id"]: row["novelty"] for row in store.rows("SELECT id, novelty FROM images")}
    for image, one in found.items():
        one.novelty = stored[image]
    for (image, one), worth in zip(found.items(), summed(list(found.values())).tolist(), strict=True):
        values = (worth, *(getattr(one, kind) for kind in KINDS[:3]), "; ".join(one.why), image)
        store.write(
            "UPDATE images SET worth = ?, disagreement = ?, uncertainty = ?, label_error = ?, why = ? WHERE id = ?",
            values,
        )


def open_images(store: Store) -> tuple[list[int], SampleList]:
    """The images that nobody reviewed, by id and as a data set without objects, for a model to look at."""
    rows = store.rows(f"SELECT * FROM images i WHERE NOT {DONE} ORDER BY id")
    vocabulary, folder = Vocabulary(tuple(store.names)), store.file.parent
    samples = [
        Sample(
            folder / row["file"], (row["height"], row["width"]), Instances.none(), vocabulary, row["id"], row["file"]
        )
        for row in rows
    ]
    return [row["id"] for row in rows], SampleList(tuple(samples), vocabulary, store.file.stem)


def order_queue(store: Store, order: str, seed: int) -> None:
    """Put the queue in another order, inside a transaction: by one measure of `queue.ORDERS`, or at random."""
    if order == "random":
        ids = [row["id"] for row in store.rows("SELECT id FROM images ORDER BY id")]
        for image, worth in zip(ids, np.random.default_rng(seed).random(len(ids)).tolist(), strict=True):
            store.write("UPDATE images SET worth = ? WHERE id = ?", (worth, image))
    elif order not in ("worth", "file"):
        store.write(f"UPDATE images SET worth = {order}")
