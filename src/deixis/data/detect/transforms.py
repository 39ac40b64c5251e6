"""Transforms from Sample to Sample that keep pixels, boxes and masks together.

All of them take samples whose image is decoded (`deixis.data.pixels.images.load`), return new ones, keep
`original_size_hw`, and draw what is random from a generator handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from deixis.data.pixels.instances import (
    MIN_VISIBLE_SHARE,
    classes_cut_away,
    crop_instances,
    flip_instances,
    kept_by_crop,
    scale_instances,
)
from deixis.errors import OptionError
from deixis.records import Sample

Transform = Callable[[Sample, np.random.Generator], Sample]

_CROP_SHARE = (0.5, 1.0)  # each side of a random crop, as a share of the image's
_CROP_TRIES = 10
_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


def resized_hw(size_hw: tuple[int, int], short_px: int, long_px: int) -> tuple[int, int]:
    """The size with the short side at `short_px`, or smaller so that the long side stays within `long_px`.

    The rounding is that of transformers' DETR-like image processors (`shortest_edge`, `longest_edge`): the short
    side is rounded, the long one cut. No side is ever below one pixel.

    >>> resized_hw((480, 640), 800, 1333)
    (800, 1066)
    """
    short, long = min(size_hw), max(size_hw)
    exact_short: float = short_px
    if long / short * short_px > long_px:
        # the long side is the limit: the short one follows, not yet rounded
        exact_short = long_px * short / long
    new_short = round(exact_short)
    if short == new_short:  # transformers leaves both sides alone here
        return size_hw
    new_short, new_long = max(new_short, 1), max(int(exact_short * long / short), 1)
    return (new_short, new_long) if size_hw[0] <= size_hw[1] else (new_long, new_short)


def resize(sample: Sample, short_px: int, long_px: int) -> Sample:
    """Resize keeping the aspect ratio; see `resized_hw`. Boxes follow the whole-pixel ratio of each axis."""
    return resize_to(sample, resized_hw(sample.size_hw, short_px, long_px))


def resize_to(sample: Sample, size_hw: tuple[int, int]) -> Sample:
    """Resize to exactly `size_hw`: by area averaging when the image shrinks, linearly when it grows.

    As long as both sides shrink by two and more they are halved first, which OpenCV does several times faster.
    """
    if size_hw == sample.size_hw:
        return sample
    pixels = _pixels(sample)
    while pixels.shape[0] >= 2 * size_hw[0] and pixels.shape[1] >= 2 * size_hw[1]:
        half_wh = (pixels.shape[1] // 2, pixels.shape[0] // 2)
        pixels = np.asarray(cv2.resize(pixels, half_wh, interpolation=cv2.INTER_AREA), np.uint8)
    # INTER_LINEAR looks at four pixels only and skips the rest where an image shrinks
    shrinks = size_hw[0] * size_hw[1] < pixels.shape[0] * pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(pixels, (size_hw[1], size_hw[0]), interpolation=interpolation), np.uint8)
    return sample.evolve(
        image=resized, size_hw=size_hw, instances=scale_instances(sample.instances, sample.size_hw, size_hw)
    )


def horizontal_flip(sample: Sample) -> Sample:
    """Mirror left to right."""
    # a copy: OpenCV takes no negative strides
    pixels = np.ascontiguousarray(_pixels(sample)[:, ::-1])
    return sample.evolve(image=pixels, instances=flip_instances(sample.instances, sample.size_hw[1]))


def crop(sample: Sample, box_xyxy_px: Sequence[int], min_visible: float = MIN_VISIBLE_SHARE) -> Sample:
    """Cut out a window, given by its whole-pixel corners; it is clipped to the image and never empty.

    Boxes are clipped to the window; objects that are mostly outside it are dropped. Where something of them is still
    visible, their classes are no longer annotated exhaustively: training calls nothing there background.
    """
    height, width = sample.size_hw
    # at least one pixel from the right and bottom border, so that the window is never empty
    left, top = (max(0, min(int(box_xyxy_px[i]), (width, height)[i] - 1)) for i in (0, 1))
    right, bottom = max(left + 1, min(int(box_xyxy_px[2]), width)), max(top + 1, min(int(box_xyxy_px[3]), height))
    pixels = np.ascontiguousarray(_pixels(sample)[top:bottom, left:right])
    window = (left, top, right, bottom)
    return sample.evolve(
        image=pixels,
        size_hw=(bottom - top, right - left),
        instances=crop_instances(sample.instances, window, min_visible),
        not_exhaustive_class_ids=sample.not_exhaustive_class_ids
        | classes_cut_away(sample.instances, window, min_visible),
    )


def random_crop(sample: Sample, generator: np.random.Generator) -> Sample:
    """Cut out a random window whose sides are half of the image's or more.

    A window that would lose every object of an image that has some, or show remains of objects that it does not keep
    (`classes_cut_away`), is drawn again, up to ten times. If all of them do, the first that keeps an object is taken;
    if none does, the image stays whole.
    """
    height, width = sample.size_hw
    second_best = None
    for _ in range(_CROP_TRIES):
        crop_height, crop_width = (max(1, round(side * generator.uniform(*_CROP_SHARE))) for side in (height, width))
        top = int(generator.integers(0, height - crop_height + 1))
        left = int(generator.integers(0, width - crop_width + 1))
        window = (left, top, left + crop_width, top + crop_height)
        if len(sample.instances) == 0 or kept_by_crop(sample.instances, window).any():
            if not classes_cut_away(sample.instances, window):
                return crop(sample, window)
            second_best = second_best or window
    return sample if second_best is None else crop(sample, second_best)


@dataclass(frozen=True)
class TrainTransform:
    """Random flip, random crop, resize to a random one of several sizes; see `train_transform`.

    An image whose caption mentions left or right is not flipped: the sentence would be wrong.
    """

    short_px: tuple[int, ...]
    long_px: int
    crop_probability: float
    flip_probability: float

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if generator.random() < self.flip_probability and not _SIDES.search(sample.caption):
            sample = horizontal_flip(sample)
        if generator.random() < self.crop_probability:
            sample = random_crop(sample, generator)
        # one size per image, not per batch: what is drawn depends on the sample alone
        return resize(sample, int(generator.choice(self.short_px)), self.long_px)


@dataclass(frozen=True)
class EvalTransform:
    """Resize only; the generator is not used."""

    short_px: int
    long_px: int

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        del generator
        return resize(sample, self.short_px, self.long_px)


def train_transform(
    short_px: Sequence[int], long_px: int, crop_probability: float = 0.5, flip_probability: float = 0.5
) -> Transform:
    """The augmentation of DETR (arXiv 2005.12872, appendix A.4): flip, crop, multi-scale resize.

    Args:
        short_px: sizes of the short side to draw from, in pixels.
        long_px: limit of the long side, in pixels.
        crop_probability, flip_probability: in [0, 1].

    Raises:
        OptionError: no size, a size below one pixel, or a probability outside [0, 1].
    """
    if not short_px or min(*short_px, long_px) < 1:
        raise OptionError(f"image sizes must be 1 pixel or more, got short {list(short_px)} and long {long_px}")
    for name, value in (("crop_probability", crop_probability), ("flip_probability", flip_probability)):
        if not 0 <= value <= 1:
            raise OptionError(f"{name} must be between 0 and 1, got {value}")
    return TrainTransform(tuple(int(size) for size in short_px), long_px, crop_probability, flip_probability)


def eval_transform(short_px: int, long_px: int) -> Transform:
    """Resize as transformers' processor would, nothing random.

    Raises:
        OptionError: a size below one pixel.
    """
    if min(short_px, long_px) < 1:
        raise OptionError(f"image sizes must be 1 pixel or more, got short {short_px} and long {long_px}")
    return EvalTransform(short_px, long_px)


def _pixels(sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    assert isinstance(sample.image, np.ndarray), "decode the sample first: deixis.data.pixels.images.load"
    return sample.image
