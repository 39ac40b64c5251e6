"""Every mistake of a detector by its kind, in the spirit of TIDE (Bolya et al., arXiv 2008.08115).

A detection is right where it takes an object of its class at IoU 0.5, the best score first. Of the others:

duplicate    the object of its class is taken
class        an object of another class is there, with IoU 0.5 or more
place        an object of its class overlaps, with IoU 0.1 to 0.5
background   nothing of these: also an object of another class that hardly overlaps

and an object is *missed* where no detection is right, and none of another class or in another place tried for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pycocotools import mask as coco_mask

from deixis.evaluation.thresholds import MIN_IOU, matched

Kind = Literal["class", "place", "duplicate", "background", "missed"]
KINDS: tuple[Kind, ...] = ("class", "place", "duplicate", "background", "missed")
NEAR_IOU = 0.1
SAME_IOU = 0.7
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Mistake:
    """A detection that is wrong, or an object that is missed.

    Attributes:
        image_id, category_id: as in the results; of a missed object, as in the annotations.
        score: of the detection; 0 for a missed object.
        box_xywh_px: of the detection or the missed object.
        other_id: category of the object that it was taken for, where there is one.
        iou: with that object.
    """

    kind: Kind
    image_id: int
    category_id: int
    score: float
    box_xywh_px: tuple[float, float, float, float]
    other_id: int | None = None
    iou: float = 0.0


@dataclass(frozen=True)
class Judged:
    """Detections from their thresholds on, judged.

    Attributes:
        right: results that are right; what lies in a crowd is neither right nor wrong.
        mistakes: by image.
        counted: results that are right or wrong.
    """

    right: list[Row]
    mistakes: list[Mistake]
    counted: list[Row]


def judge(annotations: Sequence[Row], results: Sequence[Row], threshold_of: Callable[[int], float]) -> Judged:
    """Judge every detection and every object.

    Args:
        annotations, results: in COCO's form.
        threshold_of: the least score of a category's detections that are shown.
    """
    truth, found = _by_image(annotations), _by_image(results)
    judged = Judged([], [], [])
    for image_id in sorted({*truth, *found}):
        shown = [row for row in found.get(image_id, []) if row["score"] >= threshold_of(row["category_id"])]
        _judge_image(truth.get(image_id, []), sorted(shown, key=lambda row: -row["score"]), judged)
    return judged


def _judge_image(objects: Sequence[Row], shown: Sequence[Row], judged: Judged) -> None:
    hits, counts = np.zeros(len(shown), bool), np.ones(len(shown), bool)
    # [shown] each: right ones, and those that count; an object is taken by detections of its own class only
    for category in {row["category_id"] for row in shown}:
        places = [place for place, row in enumerate(shown) if row["category_id"] == category]
        own = [row for row in objects if row["category_id"] == category]
        hits[places], counts[places] = matched([shown[place] for place in places], own)
    plain = [row for row in objects if not row["iscrowd"]]
    iou = overlaps_of(shown, plain)  # [shown, plain]
    tried = np.zeros(len(plain), bool)  # objects that some detection is about: they are not missed
    for place in np.flatnonzero(hits).tolist():  # as `matched` does, to know which object each takes
        same = [row["category_id"] == shown[place]["category_id"] for row in plain]
        tried[int(np.where(np.asarray(same) & ~tried, iou[place], -1).argmax())] = True
    for place, row in enumerate(shown):
        if not counts[place]:
            continue
        judged.counted.append(row)
        if hits[place]:
            judged.right.append(row)
            continue
        mistake, target = _false_detection(row, plain, iou[place])
        judged.mistakes.append(mistake)
        if target is not None and mistake.kind in ("class", "place"):
            tried[target] = True
    judged.mistakes.extend(
        Mistake("missed", row["image_id"], row["category_id"], 0.0, _box(row))
        for row, seen in zip(plain, tried, strict=True)
        if not seen
    )


def _false_detection(
    row: Row, objects: Sequence[Row], iou: Float[np.ndarray, " objects"]
) -> tuple[Mistake, int | None]:
    """The mistake that a false detection is, and the object that it was about."""
    same = np.asarray([one["category_id"] == row["category_id"] for one in objects], bool)
    of_same, of_other = (np.where(rows, iou, 0.0) for rows in (same, ~same))  # [objects] each
    kind: Kind = "background"
    target: int | None = None
    # the order decides: what overlaps an object of its class is a duplicate, even where another class overlaps more
    if of_same.max(initial=0) >= MIN_IOU:
        kind, target = "duplicate", int(of_same.argmax())
    elif of_other.max(initial=0) >= MIN_IOU:
        kind, target = "class", int(of_other.argmax())
    elif of_same.max(initial=0) >= NEAR_IOU:
        kind, target = "place", int(of_same.argmax())
    other = None if target is None else int(objects[target]["category_id"])
    shared = 0.0 if target is None else float(iou[target])

    return Mistake(kind, row["image_id"], row["category_id"], float(row["score"]), _box(row), other, shared), target


def overlaps_of(first: Sequence[Row], second: Sequence[Row]) -> Float[np.ndarray, "first second"]:
    """IoU of each box of the first with each of the second."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    boxes = [np.asarray([row["bbox"] for row in rows], dtype=float) for rows in (first, second)]
    return np.asarray(coco_mask.iou(*boxes, [0] * len(second)), float)


def likely_label_errors(mistakes: Sequence[Mistake], count: int, least_score: float = 0.5) -> list[Mistake]:
    """Mistakes that are probably the labels', most confident first.

    A confident detection where nothing is annotated, of another class on nearly the same box, or of the same class on a
    box that is somewhat off, often shows an object that was overlooked, misnamed or framed carelessly.
    """
    likely = [
        one
        for one in mistakes
        if one.score >= least_score
        and (one.kind in ("background", "place") or (one.kind == "class" and one.iou >= SAME_IOU))
    ]
    return sorted(likely, key=lambda one: -one.score)[:count]


def worst_images(mistakes: Sequence[Mistake], count: int) -> list[int]:
    """The images whose mistakes weigh most: a false detection its score, a missed object one half."""
    weight: dict[int, float] = defaultdict(float)
    for one in mistakes:
        weight[one.image_id] += one.score if one.kind != "missed" else 0.5
    return sorted(weight, key=lambda image: (-weight[image], image))[:count]


def confusion_matrix(
    annotations: Sequence[Row], counted: Sequence[Row], categories: Sequence[int]
) -> Float[np.ndarray, "objects found"]:
    """Objects (rows) by the class that they were found as (columns) at IoU 0.5, whatever the class; the last row and
    column are background: false detections, and objects that were not found.

    faster-coco-eval matches and counts.
    """
    size = len(categories)
    matrix = np.zeros((size + 1, size + 1))
    plain = [row for row in annotations if not row["iscrowd"]]
    if not plain or not counted:
        for rows, background in ((plain, (slice(size), size)), (counted, (size, slice(size)))):
            # one side is empty: all objects are missed, or all detections false; the library needs both
            totals = np.bincount([categories.index(row["category_id"]) for row in rows], minlength=size)
            matrix[background] = totals
        return matrix
    from faster_coco_eval import COCO
    from faster_coco_eval.extra import PreviewResults

    images = sorted({row["image_id"] for row in (*plain, *counted)})
    dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        "annotations": [{**row, "id": number} for number, row in enumerate(plain, start=1)],
    }
    truth = COCO(dataset, print_function=lambda *_: None)
    preview = PreviewResults(truth, truth.loadRes([dict(row) for row in counted]), "bbox", iou_tresh=MIN_IOU)
    found = np.asarray(preview.compute_confusion_matrix(), float)  # [K, K + 2]: classes, false detections, not found
    matrix[:size, :size], matrix[size, :size], matrix[:size, size] = found[:, :size], found[:, -2], found[:, -1]
    return matrix


def _by_image(rows: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(row)
    return found


def _box(row: Row) -> tuple[float, float, float, float]:
    left, top, width, height = map(float, row["bbox"])
    return left, top, width, height
