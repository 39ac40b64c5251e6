"""Tasks about one image: a form, checked against the image, becomes a question and an item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deixis.errors import OptionError
from deixis.serving.answers import Item, Question
from deixis.serving.images import mask_rles
from deixis.serving.models import Models
from deixis.serving.requests import Asked, AskedAnnotate, AskedDescribe, AskedDetect, AskedSegment

Ask = Callable[[Any, Models, Item], tuple[Question, Item]]
"""A form, the models and an image to what is asked about it."""


def _detect(asked: AskedDetect, models: Models, item: Item) -> tuple[Question, Item]:
    name = models.name("detector", asked.model)
    texts = tuple(dict.fromkeys(asked.names))
    question = Question("detect", name, texts=texts, threshold=asked.threshold, max_objects=asked.max_detections)
    return question, item


def _segment(asked: AskedSegment, models: Models, item: Item) -> tuple[Question, Item]:
    name, texts = models.name("segmenter", asked.model), tuple(asked.phrases)
    boxes = _boxes(asked, item) if asked.boxes else None
    if asked.points:
        return _at_points(asked, name, Item(item.pixels, boxes))
    if boxes is None:
        if not texts:
            raise OptionError("phrases: got none, and no boxes or points; give one of them")
        return Question("segment", name, texts=texts), item
    if texts and len(texts) != len(boxes):
        raise OptionError(f"phrases: got {len(texts)} for {len(boxes)} boxes; give one for each box, or none")
    return Question("boxes", name, texts=texts), Item(item.pixels, boxes)


def _boxes(asked: AskedSegment, item: Item) -> np.ndarray:
    boxes = np.array(asked.boxes, np.float64)
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise OptionError("boxes: expected corners [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    height, width = item.pixels.shape[:2]
    if (boxes[:, :2] >= [width, height]).any() or (boxes[:, 2:] <= 0).any():
        raise OptionError(f"boxes: one lies outside of the image of {width}x{height} pixels")
    return boxes


def _at_points(asked: AskedSegment, name: str, item: Item) -> tuple[Question, Item]:
    """Points are on one object, so what is given beside them may be one, too."""
    if len(asked.boxes) > 1 or len(asked.phrases) > 1:
        raise OptionError("points: are on one object; give at most one box and one phrase with them")
    if not asked.boxes and not any(point.positive for point in asked.points):
        raise OptionError("points: none is positive; give one on the object, or a box around it")
    points = np.array([(point.x, point.y) for point in asked.points])
    height, width = item.pixels.shape[:2]
    if (points > [width, height]).any():
        raise OptionError(f"points: one lies outside of the image of {width}x{height} pixels")
    inside = np.array([point.positive for point in asked.points])
    item = Item(item.pixels, item.boxes_xyxy_px, points=(points, inside))
    return Question("points", name, texts=tuple(asked.phrases)), item


def _describe(asked: AskedDescribe, models: Models, item: Item) -> tuple[Question, Item]:
    masks = mask_rles(asked.masks, (item.pixels.shape[0], item.pixels.shape[1]))
    return Question("describe", models.name("segmenter", asked.model)), Item(item.pixels, masks=masks)


def _annotate(asked: AskedAnnotate, models: Models, item: Item) -> tuple[Question, Item]:
    name = models.name("segmenter", asked.model)
    detector = models.name("detector", asked.detector) if asked.names else ""
    texts = tuple(dict.fromkeys(asked.names))
    question = Question("annotate", name, detector, texts, threshold=asked.threshold, max_objects=asked.max_objects)
    return question, item


TASKS: dict[str, tuple[type[Asked], Ask]] = {
    "detect": (AskedDetect, _detect),
    "segment": (AskedSegment, _segment),
    "describe": (AskedDescribe, _describe),
    "annotate": (AskedAnnotate, _annotate),
}
"""By name, the form of each task and what it asks."""
