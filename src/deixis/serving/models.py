"""The models that are served, by name, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deixis.errors import OptionError
from deixis.inference.annotator import Annotator
from deixis.inference.detect.detector import Detector
from deixis.inference.outputs.annotations import annotation_entry
from deixis.inference.refer.segmenter import Segmenter
from deixis.serving.answers import (
    Answer,
    Item,
    Question,
    at_points,
    described,
    drawn,
    in_boxes,
    of_masks,
    rounded,
    values,
)


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
            return [of_masks(question, item, list(one)) for item, one in zip(items, found, strict=True)]
        if question.task == "describe":
            return [described(question, segmenter, item) for item in items]
        if question.task == "boxes":
            return [in_boxes(question, segmenter, item) for item in items]
        if question.task == "points":
            return [at_points(question, segmenter, item) for item in items]
        return [self._annotate(question, segmenter, item) for item in items]

    def _detect(self, question: Question, items: Sequence[Item]) -> list[Answer]:
        found = self.detectors[question.model].predict(
            [item.pixels for item in items],
            list(question.texts) or None,
            question.threshold,
            max_detections=question.max_objects,
            # The queue has made the batch already.
            batch_size=len(items),
        )
        return [
            Answer(
                values(
                    question,
                    item,
                    [
                        {"label": one.label, "score": round(one.score, 5), "box_xyxy_px": rounded(one.box_xyxy_px)}
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
        found = values(question, item, entry["objects"]) | {"left_out": annotated.left_out}
        masks = [one.mask.mask_rle for one in annotated.objects]
        texts = [f"{one.name}: {one.caption.text}" for one in annotated.objects]
        return Answer(found, lambda: drawn(item, masks, texts))
