"""An auto-annotation function for CVAT: its `spec` and `detect`, made by `create` from parameters.

    pip install 'deixis[serve]' cvat-sdk cvat-cli
    cvat-cli task auto-annotate 137 --function-module deixis.serving.labelling.cvat \\
        -p detector=str:runs/cars/teachers/grounding_dino -p segmenter=str:ByteDance/Sa2VA-1B
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.inputs.arrays import rgb_of_pil
from deixis.errors import OptionError
from deixis.geometry.masks import box_of_mask, outlines
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.serving.answers import Item, Question
from deixis.serving.models import Models

_MAX_OBJECTS = 300


class DetectionFunction:
    """Boxes of a detector's names or, with a segmenter, the masks in them.

    Args:
        models: at most one of each kind.
        names: what to look for; those that the detector was fine-tuned on if empty.
        threshold: minimum score where CVAT gives none; by default the detector's own.

    Raises:
        OptionError: there is no detector, no name, or cvat-sdk is not installed.
    """

    def __init__(self, models: Models, names: Sequence[str] = (), threshold: float | None = None) -> None:
        try:
            import cvat_sdk.auto_annotation as cvat
        except ImportError as error:
            raise OptionError(f"CVAT's functions need {error.name}; pip install cvat-sdk") from error
        self.models, self.threshold, self._cvat = models, threshold, cvat
        self.detector = models.name("detector", "")
        self.names = tuple(dict.fromkeys(names or models.detectors[self.detector].names))
        if not self.names:
            raise OptionError("names: are required, as the detector's folder has none; give -p names=str:car,bus")
        kind = "mask" if models.segmenters else "rectangle"
        labels = [cvat.label_spec(name, number, type=kind) for number, name in enumerate(self.names)]
        self._spec = cvat.DetectionFunctionSpec(labels=labels)

    @property
    def spec(self) -> Any:
        """CVAT's `DetectionFunctionSpec`: a label for each name, of type mask or rectangle."""
        return self._spec

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """The shapes in an image.

        Args:
            context: CVAT's `DetectionFunctionContext`: the threshold, and whether masks are to be polygons.

        Returns:
            CVAT's `LabeledShapeRequest`s.
        """
        item = Item(rgb_of_pil(image))
        threshold = self.threshold if context.conf_threshold is None else context.conf_threshold
        question = Question("detect", self.detector, texts=self.names, threshold=threshold, max_objects=_MAX_OBJECTS)
        found = self.models.answer(question, [item])[0].values["objects"]
        ids = {name: number for number, name in enumerate(self.names)}
        if not self.models.segmenters:
            return [self._cvat.rectangle(ids[one["label"]], _inside(one, item)) for one in found]
        return self._shapes(context, item, found, ids) if found else []

    def _shapes(self, context: Any, item: Item, found: list[dict[str, Any]], ids: dict[str, int]) -> list[Any]:
        boxes = np.array([one["box_xyxy_px"] for one in found], np.float64)
        texts = tuple(one["label"] for one in found)
        asked = Question("boxes", self.models.name("segmenter", ""), texts=texts)
        masks = self.models.answer(asked, [Item(item.pixels, boxes)])[0].values["objects"]
        shapes = []
        for text, mask in zip(texts, masks, strict=True):
            bitmap = np.ascontiguousarray(coco_mask.decode(mask["mask"]))
            if not bitmap.any():
                continue
            if context.conv_mask_to_poly:
                parts = outlines(bitmap)
                shapes += [self._cvat.polygon(ids[text], part.ravel().tolist()) for part in parts if _is_solid(part)]
            else:
                shapes.append(self._cvat.mask(ids[text], run_lengths(bitmap)))
        return shapes


def create(
    detector: str = "", segmenter: str = "", names: str = "", threshold: float | None = None, device: str | None = None
) -> DetectionFunction:
    """The function that CVAT's command line loads.

    Args:
        detector, segmenter: "builtin", a folder or a hub id; without a segmenter there are boxes alone.
        names: with commas between.

    Raises:
        DeixisError: a model cannot be loaded, or there is none.
    """
    detectors = {"detector": load_detector(detector, device)} if detector else {}
    segmenters = {"segmenter": load_segmenter(segmenter, device)} if segmenter else {}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    return DetectionFunction(Models(detectors, segmenters), asked, threshold)


def _inside(found: dict[str, Any], item: Item) -> list[float]:
    height, width = item.pixels.shape[:2]
    corners: list[float] = np.clip(found["box_xyxy_px"], 0, [width, height, width, height]).tolist()
    return corners


def _is_solid(outline_xy: np.ndarray) -> bool:
    """Whether an outline goes around a region and not around a hole in one, which no polygon of CVAT can have."""
    x, y = outline_xy.T
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0)  # clockwise, as y points down


def run_lengths(bitmap: np.ndarray) -> list[int]:
    """A mask as CVAT has it: lengths of runs in its tight box, row by row, zeros first, then the box, both ends in."""
    left, top, right, bottom = box_of_mask(bitmap)
    flat = bitmap[top:bottom, left:right].ravel().astype(bool)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return [*([0] if flat[0] else []), *runs, left, top, right - 1, bottom - 1]
