"""What is asked about images, and what segmenters answer, as plain values and as functions that draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.geometry.pixel_boxes import clip_boxes
from deixis.geometry.rle import plain_rle
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.records import Rle
from deixis.refer_records import Segmentation
from deixis.results.draw import draw_masks
from deixis.results.segmentations import Segmentations

MAX_DRAWN_PIXELS = 4_000_000
Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Question:
    """What is asked about one image or several; equal questions share a batch.

    Attributes:
        task: `detect`, `segment`, `boxes`, `points`, `describe` or `annotate`.
        model: the name of the detector, or of the segmenter.
        detector: for `annotate`, the detector's name; empty without names.
        texts: class names, or phrases.
        threshold: minimum score of a detection; None for the model's own.
    """

    task: str
    model: str
    detector: str = ""
    texts: tuple[str, ...] = ()
    threshold: float | None = None
    max_objects: int = 100


@dataclass(frozen=True)
class Item:
    """An image, and the boxes, points or masks in it that are asked about.

    Attributes:
        points: of one object: (x, y) in pixels, and whether each is on it.
    """

    pixels: Pixels
    boxes_xyxy_px: Float[np.ndarray, "n 4"] | None = None
    masks: tuple[Rle, ...] = ()
    points: tuple[Float[np.ndarray, "points 2"], Bool[np.ndarray, " points"]] | None = None


@dataclass(frozen=True)
class Answer:
    """Plain values for JSON, and a function that draws them."""

    values: dict[str, Any]
    draw: Callable[[], Image.Image]


def at_points(question: Question, segmenter: Segmenter, item: Item) -> Answer:
    """The mask of the object that an item's points, and its box where it has one, lie on."""
    assert item.points is not None
    box = None if item.boxes_xyxy_px is None else item.boxes_xyxy_px[0]
    found = PromptedMasks(segmenter).at_clicks(item.pixels, *item.points, box)
    name = question.texts[0] if question.texts else "object"
    return of_masks(question, item, [Segmentation(name, found.mask_rle, found.predicted_iou)])


def described(question: Question, segmenter: Segmenter, item: Item) -> Answer:
    """A caption of each mask of an item."""
    captioner = Captioner(segmenter.bundle, segmenter.device, segmenter.max_tiles)
    (captions,) = captioner.caption([item.pixels], [list(item.masks)])
    rows = [{"caption": one.text, "log_prob": round(one.score, 5)} for one in captions]
    texts = [one.text for one in captions]
    return Answer(values(question, item, rows), lambda: drawn(item, item.masks, texts))


def in_boxes(question: Question, segmenter: Segmenter, item: Item) -> Answer:
    """The mask of the object in each box of an item, with its fit."""
    assert item.boxes_xyxy_px is not None
    boxes = clip_boxes(item.boxes_xyxy_px, (item.pixels.shape[0], item.pixels.shape[1]))
    texts = list(question.texts) or ["object"] * len(boxes)
    found = PromptedMasks(segmenter).in_boxes(item.pixels, boxes, texts)
    rows = [
        {
            "phrase": text,
            "score": round(one.predicted_iou, 5),
            "box_fit": round(one.fit, 5),
            "box_xyxy_px": rounded(box),
            "mask": plain_rle(one.mask_rle),
        }
        for text, box, one in zip(texts, boxes.tolist(), found, strict=True)
    ]
    return Answer(values(question, item, rows), lambda: drawn(item, [one.mask_rle for one in found], texts))


def of_masks(question: Question, item: Item, found: Sequence[Segmentation]) -> Answer:
    """Masks that a segmenter found."""
    boxes = Segmentations(tuple(found)).boxes_xyxy_px.tolist()
    rows = [
        {
            "phrase": one.text,
            "score": round(one.score, 5),
            "present": round(one.present, 5),
            "box_xyxy_px": rounded(box),
            "mask": plain_rle(one.mask_rle),
        }
        for one, box in zip(found, boxes, strict=True)
    ]
    rles, texts = [one.mask_rle for one in found], [one.text for one in found]
    return Answer(values(question, item, rows), lambda: drawn(item, rles, texts))


def values(question: Question, item: Item, objects: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer's plain values."""
    height, width = item.pixels.shape[:2]
    return {"model": question.model, "image": {"width": width, "height": height}, "objects": objects}


def rounded(numbers: Sequence[float]) -> list[float]:
    """Coordinates in pixels, to a hundredth."""
    return [round(float(number), 2) for number in numbers]


def drawn(item: Item, masks: Sequence[Rle], texts: Sequence[str]) -> Image.Image:
    """The image with its masks and their names; of a large one every second, third, ... pixel: masks are as large."""
    step = ceil(sqrt(item.pixels[..., 0].size / MAX_DRAWN_PIXELS))
    bitmaps = [np.asarray(coco_mask.decode(mask)[::step, ::step], bool) for mask in masks]
    return Image.fromarray(draw_masks(np.ascontiguousarray(item.pixels[::step, ::step]), bitmaps, texts))
