"""Augmentation beyond flips, crops and sizes, on NumPy and OpenCV: quarter turns, colour, blur, JPEG, mosaic, MixUp,
objects of other pictures.

Boxes are corners in pixels, x2 and y2 exclusive: a box from 0 to the width covers the image, and still does after each
of these. Samples are decoded; only `pasted` needs their masks, and nothing after it has any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from deixis.data.detect.transforms import Transform, resize_to
from deixis.data.pixels.instances import MIN_VISIBLE_SHARE
from deixis.geometry.masks import box_of_mask
from deixis.records import Instances, Sample

Other = Callable[[], Sample]
"""Another decoded sample of the data set, drawn at random."""

GREY = 114  # fills what no image covers in a mosaic


@dataclass(frozen=True)
class Augmentation:
    """Probabilities, in [0, 1], of what a preset does to an image besides flips, crops and sizes.

    Attributes:
        turn: of a turn by 0, 90, 180 or 270 degrees, equally often.
        colour: of other brightness, contrast, saturation and hue.
        blur, jpeg: of a Gaussian blur, and of JPEG's artefacts.
        paste: of objects of another picture on it, where both have masks.
        mosaic: of a picture made of four.
        mixup: of another picture laid over it (MixUp, arXiv 1710.09412).
    """

    turn: float = 0.0
    colour: float = 0.0
    blur: float = 0.0
    jpeg: float = 0.0
    paste: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0


PRESETS = {
    "light": Augmentation(),
    "strong": Augmentation(colour=0.8, blur=0.1, jpeg=0.2, paste=0.3, mosaic=0.3, mixup=0.15),
    "aerial": Augmentation(turn=1.0, colour=0.5, blur=0.1, jpeg=0.2),
    "flips": Augmentation(),
    "none": Augmentation(),
}
"""By the values of --augment; "flips" and "none" do without crops and sizes, which the recipe leaves out."""


@dataclass(frozen=True)
class Augmented:
    """A transform with a preset around it: turns before, what changes pixels alone after it."""

    transform: Transform
    preset: Augmentation

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if generator.random() < self.preset.turn:
            sample = turn(sample, int(generator.integers(4)))
        sample = self.transform(sample, generator)
        pixels = np.asarray(sample.image, np.uint8)
        # After the resize, so that blur and JPEG's blocks have the same size in pixels that the model sees.
        if generator.random() < self.preset.colour:
            pixels = recoloured(pixels, generator)
        if generator.random() < self.preset.blur:
            pixels = blurred(pixels, generator.uniform(0.3, 1.5))
        if generator.random() < self.preset.jpeg:
            pixels = compressed(pixels, int(generator.integers(40, 91)))
        return sample.evolve(image=pixels)


def mix(sample: Sample, preset: Augmentation, generator: np.random.Generator, other: Other) -> Sample:
    """The sample, or a mosaic or MixUp of it and others that are annotated for the same classes; without masks."""
    if preset.paste and generator.random() < preset.paste:
        sample = pasted(sample, other(), generator)
    # pasting needs masks, nothing after it does
    sample = without_masks(sample)
    if generator.random() < preset.mosaic:
        sample = mosaic(sample, [without_masks(other()) for _ in range(3)])
    if generator.random() < preset.mixup:
        sample = mixup(sample, without_masks(other()), generator.uniform(0.4, 0.6))
    return sample


def without_masks(sample: Sample) -> Sample:
    """The sample without its masks, which costs their resizing."""
    return sample.evolve(instances=replace(sample.instances, masks_rle=None))


def turn(sample: Sample, quarters: int) -> Sample:
    """Turned counter-clockwise by this many quarters, without masks.

    A caption stays, so one that names sides may become wrong.
    """
    height, width = sample.size_hw
    x1, y1, x2, y2 = sample.instances.boxes_xyxy_px.T  # [n] each
    # A quarter turn takes (x, y) to (y, width - x); what was right is then at the top.
    boxes = {
        0: (x1, y1, x2, y2),
        1: (y1, width - x2, y2, width - x1),
        2: (width - x2, height - y2, width - x1, height - y1),
        3: (height - y2, x1, height - y1, x2),
    }[quarters % 4]
    return sample.evolve(
        image=np.ascontiguousarray(np.rot90(np.asarray(sample.image), quarters)),
        size_hw=(width, height) if quarters % 2 else (height, width),
        instances=replace(sample.instances, boxes_xyxy_px=np.stack(boxes, 1), masks_rle=None),
    )


def recoloured(pixels: UInt8[np.ndarray, "h w 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Other brightness and contrast, by up to a quarter, saturation by up to a half, hue by up to 10 degrees."""
    pixels = relit(pixels, generator.uniform(0.75, 1.25), generator.uniform(-32, 32))
    return tinted(pixels, generator.uniform(-10, 10), generator.uniform(0.5, 1.5))


def relit(pixels: UInt8[np.ndarray, "h w 3"], contrast: float, brightness: float) -> UInt8[np.ndarray, "h w 3"]:
    """Values times `contrast` plus `brightness`, in steps of 256, cut at black and white."""
    # `convertScaleAbs` rounds to uint8; the clip leaves it nothing to take the absolute value of
    return np.asarray(cv2.convertScaleAbs(np.clip(pixels * contrast + brightness, 0, 255)), np.uint8)


def tinted(pixels: UInt8[np.ndarray, "h w 3"], hue_degrees: float, saturation: float) -> UInt8[np.ndarray, "h w 3"]:
    """Hue turned by some degrees, saturation times a factor."""
    # OpenCV's hue is in steps of 2 degrees, 180 of them
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue_degrees / 2) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def blurred(pixels: UInt8[np.ndarray, "h w 3"], sigma_px: float) -> UInt8[np.ndarray, "h w 3"]:
    """A Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px), np.uint8)  # (0, 0): as large as sigma needs


def compressed(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    """As JPEG of a quality, from 1 to 100, would show it."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def mosaic(sample: Sample, others: list[Sample]) -> Sample:
    """Four pictures in two rows, each in a cell of the first one's size, as large as fits; grey beside them.

    Pictures that are annotated for other classes are left out: their cells show the first one again.
    """
    height, width = sample.size_hw
    canvas = np.full((2 * height, 2 * width, 3), GREY, np.uint8)
    parts = []
    for cell, one in enumerate((sample, *(other if same_classes(sample, other) else sample for other in others))):
        # two rows of two cells
        top, left = cell // 2 * height, cell % 2 * width
        fitted = fit(one, (height, width))
        h, w = fitted.size_hw
        canvas[top : top + h, left : left + w] = np.asarray(fitted.image)
        parts.append(shifted(fitted.instances, left, top))
    return joined(sample, canvas, parts, others)


def mixup(sample: Sample, other: Sample, share: float) -> Sample:
    """The other picture, as large as fits, laid over the top left of this one; the objects of both.

    Args:
        share: weight of this one where both are.
    """
    if not same_classes(sample, other):
        return sample
    fitted = fit(other, sample.size_hw)
    h, w = fitted.size_hw
    pixels = np.asarray(sample.image, np.uint8).copy()
    blended = share * pixels[:h, :w] + (1 - share) * np.asarray(fitted.image)
    # outside the other picture this one stays as it is, and so do its objects
    pixels[:h, :w] = np.rint(blended).astype(np.uint8)
    return joined(sample, pixels, [sample.instances, fitted.instances], [other])


def pasted(sample: Sample, other: Sample, generator: np.random.Generator) -> Sample:
    """About half of another picture's objects, cut out along their masks and laid over this one; without masks.

    After arXiv 2012.07177. What they cover changes the boxes below (`uncovered`).
    """
    if not (has_masks(sample) and has_masks(other) and same_classes(sample, other)):
        return sample
    size_hw = np.maximum(1, np.rint(np.array(sample.size_hw) * generator.uniform(0.5, 1.0)).astype(int))
    fitted = fit(other, (int(size_hw[0]), int(size_hw[1])))
    masks = bitmaps(fitted)  # [n, h, w]
    chosen = (generator.random(len(masks)) < 0.5) & masks.any((1, 2)) & ~fitted.instances.is_crowd
    h, w = fitted.size_hw
    top, left = (int(generator.integers(most - side + 1)) for most, side in zip(sample.size_hw, (h, w), strict=True))
    cut = np.zeros(sample.size_hw, bool)
    # [h, w] of this picture and [h, w] of the other: where the chosen objects are
    cut[top : top + h, left : left + w] = inner = masks[chosen].any(0)
    pixels = np.asarray(sample.image, np.uint8).copy()
    pixels[cut] = np.asarray(fitted.image, np.uint8)[inner]  # [pixels, 3] each, row by row
    below, unjudged = uncovered(sample, cut)
    # what else is visible inside the outlines is there, and has no box
    unjudged |= set(fitted.instances.class_ids[~chosen & (masks & inner).any((1, 2))].tolist())
    laid = shifted(replace(fitted.instances.select(chosen), masks_rle=None), left, top)
    found = joined(sample, pixels, [below, laid], [other])
    return found.evolve(not_exhaustive_class_ids=found.not_exhaustive_class_ids | unjudged)


def uncovered(sample: Sample, cut: Bool[np.ndarray, "h w"]) -> tuple[Instances, set[int]]:
    """Objects with masks after something was laid over them, and the classes of those that go although a bit is left.

    An object that is partly covered gets the bounds of what is left of its mask, as long as that is a quarter or more.
    """
    instances = sample.instances
    boxes, areas, keep = instances.boxes_xyxy_px.copy(), instances.areas_px.copy(), np.ones(len(instances), bool)
    unjudged = set()
    for i, mask in enumerate(bitmaps(sample)):
        left = mask & ~cut
        share = left.sum() / max(mask.sum(), 1)
        if not (mask & cut).any():
            continue
        keep[i] = share > 0 and (share >= MIN_VISIBLE_SHARE or instances.is_crowd[i])
        if keep[i]:
            # by the visible share: an annotated area need not equal the pixels of the mask
            boxes[i], areas[i] = box_of_mask(left), areas[i] * share
        elif share:
            unjudged.add(int(instances.class_ids[i]))
    return replace(instances, boxes_xyxy_px=boxes, areas_px=areas, masks_rle=None).select(keep), unjudged


def has_masks(sample: Sample) -> bool:
    """Whether every object has a mask."""
    return sample.instances.masks_rle is not None or not len(sample.instances)


def bitmaps(sample: Sample) -> Bool[np.ndarray, "n h w"]:
    """The masks of a sample's objects."""
    if not sample.instances.masks_rle:
        return np.zeros((0, *sample.size_hw), bool)
    masks = np.asarray(coco_mask.decode(list(sample.instances.masks_rle)), bool)  # [h, w, n]
    return np.moveaxis(masks, -1, 0)


def fit(sample: Sample, size_hw: tuple[int, int]) -> Sample:
    """Resized to the largest size of its own shape inside another."""
    scale = min(size_hw[0] / sample.size_hw[0], size_hw[1] / sample.size_hw[1])
    inside = tuple(max(1, min(round(side * scale), most)) for side, most in zip(sample.size_hw, size_hw, strict=True))
    return resize_to(sample, (inside[0], inside[1]))


def same_classes(sample: Sample, other: Sample) -> bool:
    """Whether both are annotated for the same classes, all of them, so that their objects fit one prompt."""
    exhaustive = sample.absent_class_ids is None and other.absent_class_ids is None
    plain = not (sample.phrase_spans or other.phrase_spans)
    return exhaustive and plain and sample.vocabulary.names == other.vocabulary.names


def shifted(instances: Instances, right_px: int, down_px: int) -> Instances:
    """Moved right and down."""
    return replace(instances, boxes_xyxy_px=instances.boxes_xyxy_px + np.array([right_px, down_px] * 2))


def joined(sample: Sample, pixels: UInt8[np.ndarray, "h w 3"], parts: list[Instances], others: list[Sample]) -> Sample:
    """The sample with other pixels and the objects of all parts; what one does not judge, the whole does not."""
    instances = Instances.build(
        np.concatenate([part.boxes_xyxy_px for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
        np.concatenate([part.is_crowd for part in parts]),
        areas_px=np.concatenate([part.areas_px for part in parts]),
    )
    unjudged = [other.not_exhaustive_class_ids for other in others if same_classes(sample, other)]
    return sample.evolve(
        image=pixels,
        size_hw=(pixels.shape[0], pixels.shape[1]),
        instances=instances,
        not_exhaustive_class_ids=sample.not_exhaustive_class_ids.union(*unjudged),
    )
