"""The models that are served, by name, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.errors import OptionError
from deixis.geometry.pixel_boxes import clip_boxes
from deixis.geometry.rle import plain_rle
from deixis.inference.annotator import Annotator
from deixis.inference.detect.detector import Detector
from deixis.inference.outputs.annotations import annotation_entry
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.records import Rle
from deixis.refer_records import Segmentation
from deixis.results.draw_masks import draw_masks
from deixis.results.segmentations import Segmentations

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Question:
    """What is asked about one image or several; equal questions share a batch.

    Attributes:
        task: `detect`, `segment`, `boxes`, `describe` or `annotate`.
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
    """An image, and the boxes or masks in it that are asked about."""

    pixels: Pixels
    boxes_xyxy_px: Float[np.ndarray, "n 4"] | None = None
    masks: tuple[Rle, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Plain values for JSON, and a function that draws them."""

    values: dict[str, Any]
    draw: Callable[[], Image.Image]


class Models:
    """Detectors and segmenters by name; the first of each is the default.

    Raises:
        OptionError: there is none.
    """

    def __init__(self, detectors: Mapping[str, Detector], segmenters: Mapping[str, Segmenter]) -> None:
        if not detectors and not segmenters:
            raise OptionError("no model to serve; give --detector or --segmenter")
        self.detectors, self.segmenters = dict(detectors), dict(segmenters)

    def name(self, kind: str, given: str) -> str:
        """The name of a model, or of the default one where none is given.

        Raises:
            OptionError: no such model is served.
        """
        known = self.detectors if kind == "detector" else self.segmenters
        if given in known or (not given and known):
            return given or next(iter(known))
        served = ", ".join(known) or "none"
        raise OptionError(f"model: no {kind} {given!r} is served; served: {served}")

    def warm_up(self) -> None:
        """One pass of each model, so that the first request does not wait for kernels."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        for name in self.detectors:
            self.answer(Question("detect", name, texts=("object",)), [Item(grey)])
        for name in self.segmenters:
            self.answer(Question("segment", name, texts=("object",)), [Item(grey)])

    def answer(self, question: Question, items: Sequence[Item]) -> list[Answer]:
        """The answers about some images, in order.

        Raises:
            DeixisError: the question cannot be answered.
        """
        if question.task == "detect":
            return self._detect(question, items)
        segmenter = self.segmenters[question.model]
        if question.task == "segment":
            found = segmenter.segment([item.pixels for item in items], list(question.texts))
            return [_of_masks(question, item, list(one)) for item, one in zip(items, found, strict=True)]
        if question.task == "describe":
            return [_describe(question, segmenter, item) for item in items]
        if question.task == "boxes":
            return [_in_boxes(question, segmenter, item) for item in items]
        return [self._annotate(question, segmenter, item) for item in items]

    def _detect(self, question: Question, items: Sequence[Item]) -> list[Answer]:
        found = self.detectors[question.model].predict(
            [item.pixels for item in items],
            list(question.texts) or None,
            question.threshold,
            max_detections=question.max_objects,
            batch_size=len(items),
        )
        return [
            Answer(
                _values(
                    question,
                    item,
                    [
                        {"label": one.label, "score": round(one.score, 5), "box_xyxy_px": _rounded(one.box_xyxy_px)}
                        for one in objects
                    ],
                ),
                objects.plot,
            )
            for item, objects in zip(items, found, strict=True)
        ]

    def _annotate(self, question: Question, segmenter: Segmenter, item: Item) -> Answer:
        detector = self.detectors[question.detector] if question.detector else None
        annotator = Annotator(detector, segmenter, question.threshold, max_objects=question.max_objects)
        annotated = annotator.annotate_one(item.pixels, list(question.texts) or None)
        entry = annotation_entry("", 0, annotated)
        values = _values(question, item, entry["objects"]) | {"left_out": annotated.left_out}
        masks = [one.mask.mask_rle for one in annotated.objects]
        texts = [f"{one.name}: {one.caption.text}" for one in annotated.objects]
        return Answer(values, lambda: _drawn(item, masks, texts))


def _describe(question: Question, segmenter: Segmenter, item: Item) -> Answer:
    captioner = Captioner(segmenter.bundle, segmenter.device, segmenter.max_tiles)
    (captions,) = captioner.caption([item.pixels], [list(item.masks)])
    rows = [{"caption": one.text, "log_prob": round(one.score, 5)} for one in captions]
    texts = [one.text for one in captions]
    return Answer(_values(question, item, rows), lambda: _drawn(item, item.masks, texts))


def _in_boxes(question: Question, segmenter: Segmenter, item: Item) -> Answer:
    assert item.boxes_xyxy_px is not None
    boxes = clip_boxes(item.boxes_xyxy_px, (item.pixels.shape[0], item.pixels.shape[1]))
    texts = list(question.texts) or ["object"] * len(boxes)
    found = PromptedMasks(segmenter).in_boxes(item.pixels, boxes, texts)
    rows = [
        {
            "phrase": text,
            "score": round(one.predicted_iou, 5),
            "box_fit": round(one.fit, 5),
            "box_xyxy_px": _rounded(box),
            "mask": plain_rle(one.mask_rle),
        }
        for text, box, one in zip(texts, boxes.tolist(), found, strict=True)
    ]
    return Answer(_values(question, item, rows), lambda: _drawn(item, [one.mask_rle for one in found], texts))


def _of_masks(question: Question, item: Item, found: Sequence[Segmentation]) -> Answer:
    boxes = Segmentations(tuple(found)).boxes_xyxy_px.tolist()
    rows = [
        {
            "phrase": one.text,
            "score": round(one.score, 5),
            "present": round(one.present, 5),
            "box_xyxy_px": _rounded(box),
            "mask": plain_rle(one.mask_rle),
        }
        for one, box in zip(found, boxes, strict=True)
    ]
    rles, texts = [one.mask_rle for one in found], [one.text for one in found]
    return Answer(_values(question, item, rows), lambda: _drawn(item, rles, texts))


def _values(question: Question, item: Item, objects: list[dict[str, Any]]) -> dict[str, Any]:
    height, width = item.pixels.shape[:2]
    return {"model": question.model, "image": {"width": width, "height": height}, "objects": objects}


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(float(number), 2) for number in numbers]


def _drawn(item: Item, masks: Sequence[Rle], texts: Sequence[str]) -> Image.Image:
    bitmaps = [np.asarray(coco_mask.decode(mask), bool) for mask in masks]
    return Image.fromarray(draw_masks(item.pixels, bitmaps, texts))
