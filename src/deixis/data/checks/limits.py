"""Whether a model can find the objects of an image: its size and its number of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deixis.data.checks.images import file_of
from deixis.data.findings import Findings
from deixis.records import Sample

MIN_OBJECT_PX = 4.0


@dataclass(frozen=True)
class ModelLimits:
    """What of a model bounds the objects that it can find.

    Attributes:
        queries: objects per image.
        measured: detections per image that count in evaluation.
        image_size: shortest and longest side in pixels to which images are resized.
        whose: the model, for messages.
    """

    queries: int = 900
    measured: int = 100
    image_size: tuple[int, int] = (800, 1333)
    whose: str = "the released models"


def examine_limits(sample: Sample, limits: ModelLimits, findings: Findings) -> None:
    """Findings on one image whose objects are too many or become too small."""
    objects = sample.instances.select(~sample.instances.is_crowd)
    if not len(objects):
        return
    if len(objects) > limits.queries:
        text = f"has {len(objects)} objects; {limits.whose} have {limits.queries} queries, one for each object"
        findings.add("objects_over_queries", file_of(sample), sample.source, text)
    if len(objects) > limits.measured:
        text = f"has {len(objects)} objects; COCO's AP counts the best {limits.measured} detections of an image"
        findings.add("objects_over_measured", file_of(sample), sample.source, text)
    short_px, long_px = limits.image_size
    # As images are resized: the short side to its size, unless the long one would then be too long.
    scale = min(short_px / min(sample.size_hw), long_px / max(sample.size_hw))
    sides = (objects.boxes_xyxy_px[:, 2:] - objects.boxes_xyxy_px[:, :2]) * scale
    across = np.sqrt(np.maximum(sides, 0).prod(1))  # the side of a square of the same area
    small = across < MIN_OBJECT_PX
    if small.any():
        text = (
            f"{int(small.sum())} of {len(objects)} objects become under {MIN_OBJECT_PX:g} pixels at the size of "
            f"{limits.whose}, {short_px} x {long_px}; the smallest {across.min():.1f}"
        )
        findings.add("object_small", file_of(sample), sample.source, text)
