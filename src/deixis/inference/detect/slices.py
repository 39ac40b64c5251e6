"""Large pictures in windows: small objects keep their pixels, and what several windows show is found once.

The picture is also seen whole, for objects larger than a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from deixis.data.detect.sliced import Window, require_slices, windows_of
from deixis.geometry.pixel_boxes import overlaps
from deixis.records import Instances, Sample
from deixis.results.detections import Detections

__all__ = ["Window", "cut_out", "joined", "require_slices", "windows_of"]

_SAME = 0.5
"""Boxes of two windows with this IoU are one object; so is a cut box of which this share lies in a better one."""
_CUT_COUNTS = 0.5
"""Where two boxes are one object, the score of one that its window cuts counts this much: the other one is whole."""
_BORDER_PX = 2.0


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
        # what is absent from the picture says nothing of a window's prompt: all names are asked for
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
    scores = np.concatenate([part.scores for part in parts])
    class_ids = np.concatenate([part.class_ids for part in parts])
    ranked = np.argsort(-scores * np.where(is_cut, _CUT_COUNTS, 1.0), kind="stable")
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    better, worse = _same_objects(boxes, class_ids, rank, is_cut, counts=[len(part) for part in parts])
    # greedy, as in NMS: from the best down, each that is kept removes what is the same object in other windows
    order = np.argsort(rank[better], kind="stable")
    is_kept = [True] * len(ranked)
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if is_kept[one]:
            is_kept[other] = False
    chosen = ranked[np.array(is_kept, bool)[ranked]]
    # kept by the weighed scores, reported by their own
    order = chosen[np.argsort(-scores[chosen], kind="stable")][:count]
    return replace(
        parts[0], boxes_xyxy_px=boxes[order], scores=scores[order], class_ids=class_ids[order], size_hw=size_hw
    )


def _same_objects(
    boxes_xyxy_px: Float[np.ndarray, "n 4"],
    class_ids: Int[np.ndarray, " n"],
    rank: Int[np.ndarray, " n"],
    is_cut: Bool[np.ndarray, " n"],
    *,
    counts: Sequence[int],
) -> Int[np.ndarray, "2 pairs"]:
    """Positions of any two boxes of one class and of different windows that are one object; the better one first.

    A picture of 4K in small windows has 240,000 boxes: only windows whose boxes can meet are compared, and of these
    only the boxes near the other window.

    Args:
        counts: of each window's boxes.
    """
    held = [own for own in np.split(np.arange(len(rank)), np.cumsum(counts)[:-1]) if len(own)]
    # [4] each: what a window's boxes cover, as they may reach beyond it
    extents = [np.r_[boxes_xyxy_px[own, :2].min(0), boxes_xyxy_px[own, 2:].max(0)] for own in held]
    covered = np.array(extents).reshape(-1, 4)
    found = [np.zeros((2, 0), np.int64)]
    for number, own in enumerate(held):
        for other in number + 1 + np.flatnonzero(_meets(covered[number], covered[number + 1 :])):
            first = own[_meets(covered[other], boxes_xyxy_px[own])]
            second = held[other][_meets(covered[number], boxes_xyxy_px[held[other]])]
            meets = _meets(boxes_xyxy_px[first, None], boxes_xyxy_px[second])  # [first, second]
            rows, columns = np.nonzero(meets & (class_ids[first, None] == class_ids[second]))
            pairs = np.stack([first[rows], second[columns]])  # [2, pairs]
            better, worse = np.take_along_axis(pairs, np.argsort(rank[pairs], axis=0), axis=0)
            iou, ios = overlaps(boxes_xyxy_px[better], boxes_xyxy_px[worse])  # [pairs] each
            # a cut box is no larger than the whole one; IoU would miss it, its share inside the other does not
            smaller = _areas(boxes_xyxy_px[worse]) <= _areas(boxes_xyxy_px[better])
            same = (iou >= _SAME) | (is_cut[worse] & smaller & (ios >= _SAME))
            found.append(np.stack([better[same], worse[same]]))
    return np.concatenate(found, axis=1)


def _meets(one_xyxy_px: Float[np.ndarray, "*some 4"], other_xyxy_px: Float[np.ndarray, "*others 4"]) -> Any:
    """Whether boxes share pixels; the arrays are broadcast."""
    meets = one_xyxy_px[..., :2] < other_xyxy_px[..., 2:]
    return (meets & (other_xyxy_px[..., :2] < one_xyxy_px[..., 2:])).all(-1)


def _cut(found: Detections, window: Window, size_hw: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    """Which boxes end at a border of their window that is not one of the picture."""
    left, top, right, bottom = window
    height, width = size_hw
    boxes = found.boxes_xyxy_px
    # (left, top, right, bottom): which borders of the window lie inside the picture
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
    cut: np.ndarray = (ends & inner).any(1)  # [n, 4] -> [n]
    return cut


def _areas(boxes_xyxy_px: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    areas: np.ndarray = np.clip(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], 0, None).prod(1)
    return areas
