"""Large pictures in windows: small objects keep their pixels, and what several windows show is found once.

The picture is also seen whole, for objects larger than a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from deixis.errors import OptionError
from deixis.geometry.pixel_boxes import overlaps
from deixis.records import Instances, Sample
from deixis.results.detections import Detections

AUTO = "auto"
MIN_SIDE_PX = 32
_ENLARGED = 1.25
"""With `auto`, a picture is sliced whose short side the model would shrink by more than this."""
_SAME = 0.5
"""Boxes of two windows with this IoU are one object; so is a cut box of which this share lies in a better one."""
_CUT_COUNTS = 0.5
"""Where two boxes are one object, the score of one that its window cuts counts this much: the other one is whole."""
_BORDER_PX = 2.0

Window = tuple[int, int, int, int]
"""(left, top, right, bottom), whole pixels."""


def require_slices(slice: int | str | None, overlap: float) -> None:
    """Raises OptionError for a slice that is neither "auto" nor a number of pixels, or an overlap outside [0, 0.9]."""
    number = isinstance(slice, int) and not isinstance(slice, bool) and slice >= MIN_SIDE_PX
    if slice not in (None, AUTO) and not number:
        raise OptionError(f"slice: expected 'auto' or at least {MIN_SIDE_PX} pixels, got {slice!r}")
    if not 0 <= overlap <= 0.9:
        raise OptionError(f"overlap: expected a number from 0 to 0.9, got {overlap}")


def windows_of(
    size_hw: tuple[int, int], slice: int | str | None, overlap: float, *, model_short_px: int
) -> list[Window]:
    """The windows of a picture: it as a whole, then squares that cover it; the whole alone where it is small.

    Args:
        slice: side of the squares in pixels, or "auto" for the size that the model sees without shrinking.
        overlap: of neighbours, as a share of the side.
        model_short_px: to which the model scales the short side of what it sees.

    >>> windows_of((100, 180), 100, 0.2, model_short_px=800)
    [(0, 0, 180, 100), (0, 0, 100, 100), (80, 0, 180, 100)]
    """
    height, width = size_hw
    whole = [(0, 0, width, height)]
    if slice is None or (slice == AUTO and min(size_hw) <= _ENLARGED * model_short_px):
        return whole
    side = model_short_px if slice == AUTO else int(slice)
    if max(size_hw) <= side:
        return whole
    return whole + [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def cut_out(sample: Sample, window: Window) -> Sample:
    """The pixels of a window, without annotations."""
    assert isinstance(sample.image, np.ndarray)
    left, top, right, bottom = window
    size_hw = (bottom - top, right - left)
    return sample.evolve(
        image=sample.image[top:bottom, left:right],
        size_hw=size_hw,
        original_size_hw=size_hw,
        instances=Instances.none(),
        absent_class_ids=None,
    )


def joined(parts: Sequence[Detections], windows: Sequence[Window], size_hw: tuple[int, int], count: int) -> Detections:
    """The detections of a picture from those of its windows, in pixels of each.

    Of two boxes of one class and of different windows, which are one object, the better one stays. A box that ends at
    a border inside the picture is probably cut: it counts as worse, and gives way to one that contains most of it.
    Boxes of the same window never replace each other: the model itself decides there.
    """
    if len(parts) == 1:
        return parts[0]
    boxes = np.concatenate(  # [n, 4], moved from pixels of their windows to pixels of the picture
        [part.boxes_xyxy_px + np.array(window[:2] * 2) for part, window in zip(parts, windows, strict=True)]
    )
    is_cut = np.concatenate([_cut(part, window, size_hw) for part, window in zip(parts, windows, strict=True)])
    origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])  # [n]: the window of each box
    scores = np.concatenate([part.scores for part in parts])
    class_ids = np.concatenate([part.class_ids for part in parts])
    waiting = np.argsort(-scores * np.where(is_cut, _CUT_COUNTS, 1.0), kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        iou, ios = overlaps(boxes[best], boxes[waiting])  # [waiting] each
        smaller = _areas(boxes[waiting]) <= _areas(boxes[[best]])
        same = (iou >= _SAME) | (is_cut[waiting] & smaller & (ios >= _SAME))
        same &= (class_ids[waiting] == class_ids[best]) & (origin[waiting] != origin[best])
        waiting = waiting[~same]
    chosen = np.array(kept, np.int64)
    order = chosen[np.argsort(-scores[chosen], kind="stable")][:count]
    return replace(
        parts[0], boxes_xyxy_px=boxes[order], scores=scores[order], class_ids=class_ids[order], size_hw=size_hw
    )


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows start along an axis: evenly, the first at 0, the last ending at the end."""
    if length <= side:
        return [0]
    step = max(1.0, side * (1 - overlap))  # at least this overlap; spread evenly it is mostly more
    count = int(np.ceil((length - side) / step)) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _cut(found: Detections, window: Window, size_hw: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    """Which boxes end at a border of their window that is not one of the picture."""
    left, top, right, bottom = window
    height, width = size_hw
    boxes = found.boxes_xyxy_px
    inner = np.array([left > 0, top > 0, right < width, bottom < height])
    ends = np.stack(
        [
            boxes[:, 0] <= _BORDER_PX,
            boxes[:, 1] <= _BORDER_PX,
            boxes[:, 2] >= right - left - _BORDER_PX,
            boxes[:, 3] >= bottom - top - _BORDER_PX,
        ],
        axis=1,
    )
    cut: np.ndarray = (ends & inner).any(1)
    return cut


def _areas(boxes_xyxy_px: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    areas: np.ndarray = np.clip(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], 0, None).prod(1)
    return areas
