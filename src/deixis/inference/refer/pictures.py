"""Pictures as the segmenter takes them, in groups, and its masks in their size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from deixis.batch_records import Grid
from deixis.data.pixels.cuts import Cut
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.inference.prefetch import until_they_break
from deixis.models.sa2va import Sa2vaBundle
from deixis.refer_records import ReferSample, Segmentation


@dataclass(frozen=True)
class Prepared:
    """One image and its phrases, resized for both encoders."""

    sample: ReferSample
    texts: tuple[str, ...]
    cut: Cut
    sam_pixels: Tensor

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Of the image, where its squares form one."""
        return () if self.cut.grid is None else (self.cut.grid,)


def segmentation_of(
    logits: Float[Tensor, "side side"] | None,
    size_hw: tuple[int, int],
    text: str,
    *,
    iou: float,
    present: float,
    answer: str,
    image_id: int,
    via_px: int | None,
) -> Segmentation:
    """The record of a prediction, its mask in the size of the image; empty if `logits` is None.

    Args:
        iou, present: predicted IoU and probability of presence, in [0, 1].
        via_px: see `enlarged`.
    """
    mask = np.zeros(size_hw, bool) if logits is None else enlarged(logits, size_hw, via_px)
    return Segmentation(text, bitmap_rle(mask), iou, present, answer, image_id)


def middle_px(bundle: Sa2vaBundle) -> int | None:
    """The `via_px` of `enlarged`: the side of SAM 2's image for behaviour `sa2va`, as in Sa2VA's own code."""
    return bundle.sam_px if bundle.behaviour == "sa2va" else None


def enlarged(
    logits: Float[Tensor, "side side"], size_hw: tuple[int, int], via_px: int | None = None
) -> Bool[np.ndarray, "h w"]:
    """The mask in the size of the image: logits resized bilinearly, positive where the object is.

    Args:
        via_px: resize to a square of this side first; changes pixels along the edge of the mask.
    """
    full = logits[None, None].float()  # [1, 1, side, side]
    for size in (size_hw,) if via_px is None else ((via_px, via_px), size_hw):
        full = F.interpolate(full, size=size, mode="bilinear", align_corners=False)
    mask: np.ndarray = (full[0, 0] > 0).cpu().numpy()  # [h, w]; a logit above 0 is a probability above 0.5
    return mask


def grouped(prepared: Iterable[Prepared], phrases: int) -> Iterator[list[Prepared]]:
    """Groups of images with at least `phrases` phrases together; a group has at most `phrases` images.

    Where an image cannot be read, those before it are a group first.
    """
    group: list[Prepared] = []
    broken: list[DataError] = []
    for item in until_they_break(prepared, broken):
        group.append(item)
        # Both limits: images without a phrase would otherwise gather without end.
        if sum(len(member.texts) for member in group) >= phrases or len(group) >= phrases:
            yield group
            group = []
    if group:
        yield group
    if broken:
        raise broken[0]
