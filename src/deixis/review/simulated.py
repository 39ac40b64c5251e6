"""An annotator who knows the truth and corrects a review by it: how much work a queue saves, without people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from deixis.geometry.pixel_boxes import overlaps
from deixis.records import Sample
from deixis.review import actions
from deixis.review.store import CORNERS, Row, Store

NAME = "simulated"
SAME_IOU = 0.5
"""A box that overlaps an object less is not about it."""
GOOD_IOU = 0.75
"""A box that overlaps its object less is drawn anew."""


def answer_image(store: Store, image: int, truth: Sample) -> None:
    """Correct every object of an image, draw what is missing, finish the image; what is done already stays."""
    found = store.rows("SELECT * FROM objects WHERE image = ? AND status IN ('open', 'accepted') ORDER BY id", (image,))
    objects = truth.instances.select(~truth.instances.is_crowd)
    boxes = objects.boxes_xyxy_px
    names = [truth.vocabulary.names[int(one)] for one in objects.class_ids]
    pairs = dict(_pairs(found, boxes))
    for place, row in enumerate(found):
        if place in pairs:
            _correct(store, row, names[pairs[place]], boxes[pairs[place]])
        else:
            actions.act_on_object(store, "reject", row["id"], version=row["version"], annotator=NAME)
    for place in sorted(set(range(len(names))) - set(pairs.values())):
        actions.add_object(store, image, names[place], annotator=NAME, box=boxes[place].tolist())
    actions.finish_image(store, image, version=store.row("images", image)["version"], annotator=NAME)


def _pairs(found: list[Row], boxes_xyxy_px: Float[np.ndarray, "n 4"]) -> Iterator[tuple[int, int]]:
    """Objects of the review and true ones that are the same, those that overlap most first."""
    given = np.array([[row[name] for name in CORNERS] for row in found], np.float64).reshape(-1, 4)
    if not len(given) or not len(boxes_xyxy_px):
        return
    iou = np.stack([overlaps(one, boxes_xyxy_px)[0] for one in given])  # [found, true]
    while iou.max(initial=0) >= SAME_IOU:
        place, true = np.unravel_index(int(iou.argmax()), iou.shape)
        yield int(place), int(true)
        # Neither of the two is paired again.
        iou[place, :], iou[:, true] = 0, 0


def _correct(store: Store, row: Row, name: str, box: Float[np.ndarray, " 4"]) -> None:
    if row["status"] == "accepted":
        return
    version, given = row["version"], np.array([row[corner] for corner in CORNERS], np.float64)
    fits = overlaps(given, box[None])[0].item() >= GOOD_IOU
    if row["label"] != name:
        actions.act_on_object(store, "rename", row["id"], version=version, annotator=NAME, label=name)
    elif fits:
        actions.act_on_object(store, "accept", row["id"], version=version, annotator=NAME)
    if not fits:
        version = store.row("objects", row["id"])["version"]
        actions.act_on_object(store, "move", row["id"], version=version, annotator=NAME, box=box.tolist())
