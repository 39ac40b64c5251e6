"""Detector and segmenter together: boxes, masks, captions, and a check of each caption by segmenting it again.

>>> from deixis.inference.annotator import load_annotator
>>> annotator = load_annotator("builtin", "builtin")  # doctest: +SKIP
>>> [picture] = annotator.annotate(["garden.jpg"], ["red car", "dog"])  # doctest: +SKIP
>>> [(found.name, found.caption.text, found.cycle_iou) for found in picture.objects]  # doctest: +SKIP
[('dog', 'a brown dog on the grass', 0.91)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pycocotools import mask as coco_mask

from deixis.data.detect.wordings import Wordings
from deixis.errors import OptionError, PromptError
from deixis.geometry.pixel_boxes import clip_boxes
from deixis.inference.detect.detector import Detector, Progress, load_detector
from deixis.inference.images import ImageInput, Picture, as_pixels, each_picture
from deixis.inference.refer.cycle import Cycle
from deixis.inference.refer.prompted_masks import PromptedMask, PromptedMasks
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.refer_records import Caption, Expression, ReferList, ReferSample

NAMELESS = "object"
"""The name of an object with an empty caption."""
_ARTICLES = {"a", "an", "the", "this", "that", "one"}
# Words that end the noun phrase with which a caption begins: "red car" of "the red car in front of a house".
_AFTER_NOUN = {
    *("in", "on", "at", "of", "with", "that", "which", "who", "from", "by", "near", "under", "over", "above", "below"),
    *("behind", "beside", "between", "left", "right", "next", "to", "and", "is", "are", "standing", "sitting", "lying"),
}


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in an image.

    Attributes:
        name: as given; without names, the noun phrase that its caption begins with.
        box_xyxy_px: the detector's box; without names, the mask's.
        detector_score: in [0, 1]; None without a detector.
        mask: with the prompt that gave it, its predicted IoU, and how well it fits the box.
        caption: its score is the mean log-probability of its tokens.
        cycle_iou: IoU of the mask with the mask that the caption gives.
    """

    name: str
    box_xyxy_px: Float[np.ndarray, " 4"]
    detector_score: float | None
    mask: PromptedMask
    caption: Caption
    cycle_iou: float


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its objects.

    Attributes:
        size_hw: of the image, in pixels.
        objects: best first, by the detector's score or, without names, by predicted IoU.
        left_out: the number of detections without a mask that fits.
    """

    size_hw: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    left_out: int = 0


class Annotator:
    """A detector and a segmenter that work on the same images.

    Args:
        detector: detects the names; None if names are never given.
        segmenter: gives masks and captions, and segments the captions again.
        threshold: detections with a lower score are dropped; by default see `Detector.predict`.
        min_fit: a detection is dropped if its mask's tight box has a lower IoU with its own box.
        points: without names, SAM 2 is prompted with a grid of this many points per side.
        min_predicted_iou: without names, masks of a lower predicted IoU are dropped.
        max_overlap: without names, masks with this IoU or more are duplicates.
        max_objects: per image.
        max_new_tokens: per caption.
        batch_size: regions, or captions to segment, per forward pass.
    """

    def __init__(
        self,
        detector: Detector | None,
        segmenter: Segmenter,
        threshold: float | None = None,
        *,
        min_fit: float = 0.3,
        points: int = 16,
        min_predicted_iou: float = 0.8,
        max_overlap: float = 0.7,
        max_objects: int = 50,
        max_new_tokens: int = 40,
        batch_size: int = 8,
    ) -> None:
        if min(points, max_objects, batch_size) < 1:
            raise OptionError(
                f"points, max_objects and batch_size must be at least 1, got {points}, {max_objects} and {batch_size}"
            )
        self.detector, self.segmenter = detector, segmenter
        self.threshold, self.min_fit = threshold, min_fit
        self.points, self.min_predicted_iou, self.max_overlap = points, min_predicted_iou, max_overlap
        self.max_objects, self.batch_size = max_objects, batch_size
        self.prompted = PromptedMasks(segmenter)
        self.cycle = Cycle(segmenter.bundle, segmenter.device, segmenter.max_tiles, max_new_tokens=max_new_tokens)

    def annotate(
        self, images: ImageInput, names: Sequence[str] | Wordings | None = None, progress: Progress | None = None
    ) -> list[AnnotatedImage]:
        """Boxes, masks and captions of images.

        Args:
            images: one or many of path, folder, pattern, URL, PIL image, array, tensor, bytes, video; see
                `deixis.data.inputs.pictures`.
            names: what to look for; without names, whatever SAM 2 segments. With several wordings of a class,
                `{"car": ["car", "automobile"]}`.

        Raises:
            DataError: an image cannot be read.
            PromptError: `names` is not a list, a name is blank or too long, or there is no detector.
        """
        pictures = list(each_picture(images))
        found = []
        for done, image in enumerate(pictures, start=1):
            found.append(self.annotate_one(image, names))
            if progress is not None:
                progress(done, len(pictures))
        return found

    def stream(
        self, images: ImageInput, names: Sequence[str] | Wordings | None = None
    ) -> Iterator[tuple[Picture, AnnotatedImage]]:
        """The same image by image, each with what it was: for cameras, videos and folders larger than the memory."""
        _checked(names)
        return ((picture, self.annotate_one(picture, names)) for picture in each_picture(images))

    def annotate_one(self, image: ImageInput, names: Sequence[str] | Wordings | None = None) -> AnnotatedImage:
        """The same for a single image."""
        asked = _checked(names)
        if asked and self.detector is None:
            raise PromptError(f"names {list(asked)} need a detector; load one, or leave out names")
        pixels = as_pixels(image)
        seeds, left_out = self._detected(pixels, asked) if asked else (self._on_grid(pixels), 0)
        size_hw = (pixels.shape[0], pixels.shape[1])
        # without a phrase: the cycle writes it
        regions = tuple(Expression((), (mask.mask_rle,)) for _, _, _, mask in seeds)
        ((_, cycled),) = self.cycle.run(ReferList((ReferSample(pixels, size_hw, regions),)), self.batch_size)
        objects = tuple(
            AnnotatedObject(name or noun_phrase(said.caption.text), box, score, mask, said.caption, said.iou)
            for (name, box, score, mask), said in zip(seeds, cycled, strict=True)
        )
        return AnnotatedImage(size_hw, objects, left_out)

    def _detected(
        self, pixels: UInt8[np.ndarray, "h w 3"], names: tuple[str, ...] | Wordings
    ) -> tuple[list[_Seed], int]:
        """Detections with a mask that fits, and how many have none."""
        assert self.detector is not None
        (detections,) = self.detector.predict([pixels], names, self.threshold, max_detections=self.max_objects)
        boxes = clip_boxes(detections.boxes_xyxy_px, (pixels.shape[0], pixels.shape[1]))
        masks = self.prompted.in_boxes(pixels, boxes, detections.labels)
        rows = zip(detections.labels, boxes, detections.scores.tolist(), masks, strict=True)
        # An empty mask has no region to caption.
        seeds: list[_Seed] = [row for row in rows if row[3].fit >= self.min_fit and coco_mask.area(row[3].mask_rle)]
        return seeds, len(masks) - len(seeds)

    def _on_grid(self, pixels: UInt8[np.ndarray, "h w 3"]) -> list[_Seed]:
        masks = self.prompted.on_grid(
            pixels,
            self.points,
            min_iou=self.min_predicted_iou,
            max_overlap=self.max_overlap,
            max_masks=self.max_objects,
        )
        seeds: list[_Seed] = []
        for mask in masks:
            left, top, width, height = coco_mask.toBbox(mask.mask_rle).tolist()  # COCO's box, not corners
            seeds.append((None, np.array([left, top, left + width, top + height]), None, mask))
        return seeds


_Seed = tuple[str | None, np.ndarray, float | None, PromptedMask]
"""Name, box, the detector's score, mask."""


def load_annotator(
    detector: str | Path | None, segmenter: str | Path, device: str | torch.device | None = None, *, max_tiles: int = 12
) -> Annotator:
    """An annotator of two models, each `builtin`, a folder or a hub id; without names no detector is needed.

    Raises:
        ModelError: one of them cannot be read.
    """
    found = None if detector is None else load_detector(detector, device)
    return Annotator(found, load_segmenter(segmenter, device, max_tiles))


def noun_phrase(caption: str) -> str:
    """The first words of a caption, up to a preposition or verb, without the article; "object" if there are none.

    >>> noun_phrase("The red car in front of a house.")
    'red car'
    """
    # letters and digits; hyphens and apostrophes only inside a word
    words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", caption.lower())
    while words and words[0] in _ARTICLES:
        words = words[1:]
    # never at the first word: "left shoe" is a noun phrase
    end = next((place for place, word in enumerate(words) if place and word in _AFTER_NOUN), len(words))
    return " ".join(words[:end]) or NAMELESS


def _checked(names: Sequence[str] | Wordings | None) -> tuple[str, ...] | Wordings:
    if isinstance(names, str):
        raise PromptError(f"names must be a list of names, got the string {names!r}; write [{names!r}]")
    asked = tuple(dict.fromkeys(names or ()))
    if any(not name.strip() for name in asked):
        raise PromptError(f"names must not be blank, got {list(asked)}")
    return names if isinstance(names, Mapping) else asked
