"""cIoU and gIoU of segmented phrases, overall and by group.

Let I and U be the intersection and union, in pixels, of a phrase's predicted and true mask (the union of its objects).
cIoU = ΣI / ΣU over all phrases (Yu et al., arXiv 1608.00272), which large objects dominate. gIoU = the mean of
I / (U + 1e-5), and 1 where both masks are empty (LISA, arXiv 2308.00692; GRES, arXiv 2306.00968): every phrase counts
the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.sets.mask_regions import mask_key
from deixis.errors import DataError
from deixis.evaluation.coco_map import without_nan
from deixis.evaluation.cocos_form import MEDIUM_AREA_PX, SMALL_AREA_PX
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.refer_records import Expression, ReferSample, Segmentation

UNION_EPSILON = 1e-5
# (largest value, name) of each group in reports
_WORDS = ((2, "1-2"), (5, "3-5"), (9, "6-9"), (math.inf, "10+"))
_OBJECTS = ((0, "0"), (1, "1"), (3, "2-3"), (9, "4-9"), (math.inf, "10+"))


@dataclass(frozen=True)
class GroupIoU:
    """cIoU and gIoU, in [0, 1], of a group of phrases, and their number. cIoU is NaN where all masks are empty."""

    ciou: float
    giou: float
    phrases: int


@dataclass(frozen=True)
class ReferMetrics:
    """How well phrases were segmented, each in [0, 1]; NaN where there is no phrase to measure.

    Attributes:
        ciou: sum of intersections over sum of unions, over all phrases.
        giou: the mean IoU of a phrase.
        absent_accuracy: share of phrases without an object whose mask is empty (GRES's N-acc).
        present_accuracy: share of the other phrases whose mask is not empty (GRES's T-acc).
        words, sizes, objects, tags: cIoU and gIoU by number of words, by area of the target (COCO's small, medium and
            large; `absent` for none), by number of objects annotated in the image, and by the phrase's own tags.
        phrases: how many were measured.
        images: how many images have them.
    """

    ciou: float
    giou: float
    absent_accuracy: float
    present_accuracy: float
    words: dict[str, GroupIoU]
    sizes: dict[str, GroupIoU]
    objects: dict[str, GroupIoU]
    tags: dict[str, GroupIoU]
    phrases: int
    images: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON under their usual names, without metrics that are NaN."""
        plain: dict[str, Any] = {
            "gIoU": self.giou,
            "cIoU": self.ciou,
            "N_acc": self.absent_accuracy,
            "T_acc": self.present_accuracy,
        }
        for name in ("words", "sizes", "objects", "tags"):
            groups: dict[str, GroupIoU] = getattr(self, name)
            plain[f"by_{name}"] = {
                key: without_nan({"gIoU": group.giou, "cIoU": group.ciou, "phrases": group.phrases})
                for key, group in groups.items()
            }
        return without_nan(plain | {"phrases": self.phrases, "images": self.images})


@dataclass
class _Sums:
    intersection: int = 0
    union: int = 0
    ious: float = 0.0
    count: int = 0

    def add(self, intersection: int, union: int) -> None:
        self.intersection += intersection
        self.union += union
        # LISA's code adds 1e-5; an empty mask for an absent object is right, which 0 / 1e-5 would call wrong
        self.ious += intersection / (union + UNION_EPSILON) if union else 1.0
        self.count += 1

    def group(self) -> GroupIoU:
        # (ΣI) / (ΣU), not the mean of I / U
        ciou = self.intersection / self.union if self.union else math.nan
        return GroupIoU(ciou, self.ious / self.count if self.count else math.nan, self.count)


@dataclass
class ReferIoU:
    """Accumulates phrases one by one; keeps sums, no masks."""

    _all: _Sums = field(default_factory=_Sums)
    _groups: dict[str, dict[str, _Sums]] = field(default_factory=lambda: {name: {} for name in _GROUPINGS})
    _absent: list[int] = field(default_factory=lambda: [0, 0])  # right, all
    _present: list[int] = field(default_factory=lambda: [0, 0])
    _images: set[tuple[str, int]] = field(default_factory=set)

    def add(self, sample: ReferSample, expression: Expression, text: str, *, predicted: Rle) -> None:
        """Add one sentence of an expression with its predicted mask.

        Raises:
            DataError: the mask has another size than the image.
        """
        if tuple(predicted["size"]) != sample.size_hw:
            raise DataError(
                f"{sample.source}: the mask of {text!r} is {tuple(predicted['size'])}, the image {sample.size_hw}"
            )
        if expression.ignored_rle:
            predicted = without_ignored(predicted, expression.ignored_rle)
        intersection, found, wanted = overlap(predicted, expression.masks_rle)
        # |A ∪ B| = |A| + |B| - |A ∩ B|, without decoding the masks
        union = found + wanted - intersection
        keys = {
            "words": [_bucket(len(text.split()), _WORDS)],
            "sizes": [size_group(wanted)],
            "objects": [_bucket(count_objects(sample), _OBJECTS)],
            "tags": list(expression.tags),
        }
        self._all.add(intersection, union)
        for name, buckets in keys.items():
            for bucket in buckets:
                self._groups[name].setdefault(bucket, _Sums()).add(intersection, union)
        # GRES, arXiv 2306.00968: N-acc asks of empty targets, T-acc of the others
        tally = self._present if wanted else self._absent
        tally[0] += bool(found) == bool(wanted)
        tally[1] += 1
        # data sets that are joined repeat image ids; their files differ
        self._images.add((sample.source, sample.image_id))

    def result(self) -> ReferMetrics:
        """The metrics of all phrases added so far."""
        groups = {
            name: {key: found[key].group() for key in _ordered(name, found)} for name, found in self._groups.items()
        }
        whole = self._all.group()
        return ReferMetrics(
            ciou=whole.ciou,
            giou=whole.giou,
            absent_accuracy=share(self._absent),
            present_accuracy=share(self._present),
            **groups,
            phrases=whole.phrases,
            images=len(self._images),
        )


def evaluate_segmentations(
    truth: Sequence[ReferSample], segmentations: Sequence[Sequence[Segmentation]]
) -> ReferMetrics:
    """Score masks against annotations. Every sentence of every expression is one phrase.

    Args:
        truth: annotated samples; their images are not read. Expressions without sentences do not count.
        segmentations: per sample, in order, one per sentence, in the order of the expressions and their sentences.

    Raises:
        DataError: the two do not belong together (counts, image ids, sentences, sizes).

    >>> left = coco_mask.encode(np.asfortranarray([[1, 1, 0, 0]], np.uint8))
    >>> middle = coco_mask.encode(np.asfortranarray([[0, 1, 1, 0]], np.uint8))
    >>> sample = ReferSample(Path("a.jpg"), (1, 4), (Expression(("the cat",), (left,)),))
    >>> metrics = evaluate_segmentations([sample], [[Segmentation("the cat", middle, score=0.9)]])
    >>> round(metrics.ciou, 3), round(metrics.giou, 3)
    (0.333, 0.333)
    """
    if len(truth) != len(segmentations):
        raise DataError(f"segmentations of {len(segmentations)} images for {len(truth)}; expected one list per image")
    sums = ReferIoU()
    for sample, found in zip(truth, segmentations, strict=True):
        asked = [(expression, text) for expression in sample.expressions for text in expression.texts]
        if len(asked) != len(found):
            raise DataError(f"{sample.source}: {len(found)} segmentations for {len(asked)} sentences")
        for (expression, text), segmentation in zip(asked, found, strict=True):
            if (segmentation.text, segmentation.image_id) != (text, sample.image_id):
                raise DataError(
                    f"{sample.source}: the segmentation is of {segmentation.text!r} in image {segmentation.image_id}, "
                    f"expected {text!r} in image {sample.image_id}"
                )
            sums.add(sample, expression, text, predicted=segmentation.mask_rle)
    return sums.result()


def overlap(predicted: Rle, wanted: Sequence[Rle]) -> tuple[int, int, int]:
    """Areas in pixels: (the intersection, the predicted mask, the union of the target masks)."""
    found = int(coco_mask.area(predicted))
    if not wanted:
        return 0, found, 0
    # several objects of a phrase are one target, as in gRefCOCO
    target = coco_mask.merge(list(wanted))
    return int(coco_mask.area(coco_mask.merge([predicted, target], intersect=True))), found, int(coco_mask.area(target))


def without_ignored(predicted: Rle, ignored: Sequence[Rle]) -> Rle:
    """A predicted mask less the pixels of regions that do not count."""
    outside = coco_mask.decode(coco_mask.merge(list(ignored))) == 0
    return bitmap_rle(np.asarray(coco_mask.decode(predicted), dtype=bool) & outside)


def count_objects(sample: ReferSample) -> int:
    """How many different masks all expressions of an image have."""
    return len({mask_key(mask) for expression in sample.expressions for mask in expression.masks_rle})


def _bucket(value: int, edges: Sequence[tuple[float, str]]) -> str:
    return next(name for last, name in edges if value <= last)


def size_group(area_px: int) -> str:
    """COCO's name for an area in pixels; `absent` for 0."""
    if not area_px:
        return "absent"
    if area_px < SMALL_AREA_PX:
        return "small"
    return "medium" if area_px <= MEDIUM_AREA_PX else "large"


_GROUPINGS: dict[str, tuple[str, ...]] = {  # groups in the order of reports; tags are sorted by name
    "words": tuple(name for _, name in _WORDS),
    "sizes": ("small", "medium", "large", "absent"),
    "objects": tuple(name for _, name in _OBJECTS),
    "tags": (),
}


def _ordered(grouping: str, found: dict[str, _Sums]) -> list[str]:
    return [key for key in _GROUPINGS[grouping] if key in found] or sorted(found)


def share(tally: Sequence[int]) -> float:
    """The share of (right, all); NaN for none."""
    return tally[0] / tally[1] if tally[1] else math.nan
