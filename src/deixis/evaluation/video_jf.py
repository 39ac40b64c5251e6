"""J, F and J&F of phrases segmented through clips (DAVIS: Perazzi et al. 2016; arXiv 1704.00675), overall and by group.

Per frame, J is the IoU of the masks, and 1 where both are empty. F is the harmonic mean of precision and recall of the
masks' boundaries: a boundary pixel counts as found if the other boundary has a pixel within ceil(0.008 · diagonal)
pixels. Both are averaged over a phrase's labelled frames, then over phrases; J&F is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from deixis.errors import DataError
from deixis.evaluation.coco_map import without_nan
from deixis.evaluation.refer_iou import share
from deixis.records import Rle
from deixis.video_records import Clip, ClipExpression

TOLERANCE = 0.008
"""Maximum distance of matching boundaries, as a fraction of the frame's diagonal."""
PRESENCES = ("always", "late", "vanishes", "returns", "never")


@dataclass(frozen=True)
class GroupJF:
    """J and F, in [0, 1], of a group of phrases, and their number; NaN if there are none."""

    j: float
    f: float
    phrases: int

    @property
    def jf(self) -> float:
        """J&F, the mean of both."""
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class VideoMetrics:
    """How well phrases were segmented through clips, each in [0, 1]; NaN where there is nothing to measure.

    Attributes:
        whole: all phrases.
        presence: by when the target is visible; see `presence_of`.
        tags: by the phrases' own tags.
        absent_accuracy: share of labelled frames without a visible target whose mask is empty.
        present_accuracy: share of the other labelled frames whose mask is not empty.
        clips, frames: how many were measured.
    """

    whole: GroupJF
    presence: dict[str, GroupJF]
    tags: dict[str, GroupJF]
    absent_accuracy: float
    present_accuracy: float
    clips: int
    frames: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON under their usual names, without metrics that are NaN."""
        plain: dict[str, Any] = _plain(self.whole)
        plain |= {"frame_N_acc": self.absent_accuracy, "frame_T_acc": self.present_accuracy}
        plain["by_presence"] = {name: _plain(group) for name, group in self.presence.items()}
        plain["by_tags"] = {name: _plain(group) for name, group in self.tags.items()}
        plain |= {"clips": self.clips, "frames": self.frames}
        return without_nan(plain)


@dataclass
class _Sums:
    j: float = 0.0
    f: float = 0.0
    count: int = 0

    def add(self, j: float, f: float) -> None:
        self.j, self.f, self.count = self.j + j, self.f + f, self.count + 1

    def group(self) -> GroupJF:
        count = self.count or math.nan
        return GroupJF(self.j / count, self.f / count, self.count)


@dataclass
class VideoJF:
    """Accumulates phrases one by one; keeps sums, no masks."""

    _all: _Sums = field(default_factory=_Sums)
    _presence: dict[str, _Sums] = field(default_factory=dict)
    _tags: dict[str, _Sums] = field(default_factory=dict)
    _absent: list[int] = field(default_factory=lambda: [0, 0])  # right, all
    _present: list[int] = field(default_factory=lambda: [0, 0])
    _clips: set[tuple[str, str]] = field(default_factory=set)
    _frames: int = 0

    def add(self, clip: Clip, expression: ClipExpression, text: str, *, predicted: Mapping[int, Rle]) -> None:
        """Add one sentence of an expression with its predicted masks.

        Args:
            predicted: masks by frame, at least for the labelled frames; others do not count.

        Raises:
            DataError: the clip has no labels, or a labelled frame has no mask or one of another size.
        """
        if not clip.labelled:
            raise DataError(f"{clip.source}: has no labelled frames, so nothing can be measured")
        sums = _Sums()
        for label, frame in enumerate(clip.labelled):
            found = _decoded(clip, text, frame, predicted=predicted)
            masks = clip.masks_at(expression, label)
            # [h, w]; all objects of the phrase are one target
            wanted = coco_mask.decode(coco_mask.merge(list(masks))) if masks else np.zeros(clip.size_hw, np.uint8)
            sums.add(region_similarity(found > 0, wanted > 0), boundary_f(found > 0, wanted > 0))
            tally = self._present if wanted.any() else self._absent
            tally[0] += bool(found.any()) == bool(wanted.any())
            tally[1] += 1
        mean = sums.group()  # over the frames of this phrase
        self._all.add(mean.j, mean.f)
        # A phrase counts as its mean over frames, however long its clip is.
        for groups, names in ((self._presence, presence_of(clip, expression)), (self._tags, expression.tags)):
            for name in names:
                groups.setdefault(name, _Sums()).add(mean.j, mean.f)
        self._clips.add((clip.source, clip.video_id))
        self._frames += len(clip.labelled)

    def result(self) -> VideoMetrics:
        """The metrics of all phrases added so far."""
        return VideoMetrics(
            whole=self._all.group(),
            presence={name: self._presence[name].group() for name in PRESENCES if name in self._presence},
            tags={name: self._tags[name].group() for name in sorted(self._tags)},
            absent_accuracy=share(self._absent),
            present_accuracy=share(self._present),
            clips=len(self._clips),
            frames=self._frames,
        )


def presence_of(clip: Clip, expression: ClipExpression) -> tuple[str, ...]:
    """When an expression's target is visible, by the labelled frames; one or several of `PRESENCES`.

    `late`: not in the first frame. `vanishes`: not in the last one. `returns`: missing in between. `always` and `never`
    exclude all others.
    """
    seen = [any(coco_mask.area(mask) for mask in clip.masks_at(expression, i)) for i in range(len(clip.labelled))]
    if all(seen) or not any(seen):
        return ("always",) if any(seen) else ("never",)
    first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
    found = {"late": first > 0, "vanishes": last < len(seen) - 1, "returns": not all(seen[first:last])}
    return tuple(name for name, holds in found.items() if holds)


def region_similarity(found: Bool[np.ndarray, "h w"], wanted: Bool[np.ndarray, "h w"]) -> float:
    """J: intersection over union; 1 where both masks are empty.

    >>> float(region_similarity(np.array([[True, True]]), np.array([[True, False]])))
    0.5
    """
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 1.0


def boundary_f(found: Bool[np.ndarray, "h w"], wanted: Bool[np.ndarray, "h w"], tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of boundary precision and recall; 1 where neither mask has a boundary.

    A mask that covers the whole frame has no boundary, as in the benchmark.

    Args:
        tolerance: as a fraction of the frame's diagonal; rounded up to whole pixels.
    """
    # DAVIS 2016 (Perazzi et al., CVPR), boundary measure: 0.008 of the diagonal
    radius = math.ceil(tolerance * math.hypot(*found.shape))
    ours, theirs = _boundary(found), _boundary(wanted)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    disk = _disk(radius)  # dilating with it covers all pixels within `radius` of a boundary
    precision = np.count_nonzero(ours & (cv2.dilate(theirs, disk) > 0)) / np.count_nonzero(ours)
    recall = np.count_nonzero(theirs & (cv2.dilate(ours, disk) > 0)) / np.count_nonzero(theirs)
    # F = 2 P R / (P + R)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Pixels that differ from their neighbour to the right, below, or diagonally; the frame's edges are no boundary."""
    # The last row and column become their own neighbours, so nothing differs there.
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    # As DAVIS's `seg2bmap`: one of the two pixels at a border, not both.
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((mask ^ right) | (mask ^ below) | (mask ^ across), np.uint8)


@lru_cache
def _disk(radius: int) -> UInt8[np.ndarray, "side side"]:
    """A disk: all pixels within a radius of the centre."""
    offsets = np.arange(-radius, radius + 1)
    return np.asarray(np.add.outer(offsets**2, offsets**2) <= radius**2, np.uint8)


def _decoded(clip: Clip, text: str, frame: int, *, predicted: Mapping[int, Rle]) -> UInt8[np.ndarray, "h w"]:
    if frame not in predicted:
        raise DataError(f"{clip.source}: {text!r} has no mask in labelled frame {frame}")
    mask = predicted[frame]
    if tuple(mask["size"]) != clip.size_hw:
        raise DataError(
            f"{clip.source}: the mask of {text!r} in frame {frame} is {tuple(mask['size'])}, the frame {clip.size_hw}"
        )
    return np.asarray(coco_mask.decode(mask), np.uint8)


def _plain(group: GroupJF) -> dict[str, Any]:
    values = {"J&F": group.jf, "J": group.j, "F": group.f, "phrases": group.phrases}
    return without_nan(values)
