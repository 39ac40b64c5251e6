"""Pictures of pages: shrunk, with what was annotated or detected drawn on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.records import Instances, Sample
from deixis.refer_records import ReferSample
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections

LONG_SIDE_PX = 560
Picture = tuple[str, UInt8[np.ndarray, "_h _w 3"]]
"""(caption, RGB pixels), as a page shows it."""


def titled(sample: Sample | ReferSample) -> tuple[str, UInt8[np.ndarray, "_h _w 3"]]:
    """(title, pixels) of a sample whose image is decoded."""
    assert isinstance(sample.image, np.ndarray)
    return sample.source or f"image {sample.image_id}", sample.image


def annotated_pictures(samples: Iterable[Sample]) -> list[Picture]:
    """Samples with decoded images, their annotations drawn."""
    figures = []
    for sample in samples:
        assert isinstance(sample.image, np.ndarray)
        caption = f"{sample.source or sample.image_id}: {len(sample.instances)} objects"
        figures.append(drawn(caption, sample.image, sample))
    return figures


def drawn(caption: str, pixels: UInt8[np.ndarray, "h w 3"], objects: Detections | Sample) -> Picture:
    """A picture with its objects drawn."""
    scale = min(1.0, LONG_SIDE_PX / max(pixels.shape[:2]))
    return caption, draw_detections(shrunk(pixels, LONG_SIDE_PX), _scaled(objects, scale))


def shrunk(pixels: UInt8[np.ndarray, "h w 3"], long_side_px: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A picture whose long side is at most this; smaller ones stay as they are."""
    height, width = pixels.shape[:2]
    scale = long_side_px / max(height, width)
    if scale >= 1:
        return pixels
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size_wh, Image.Resampling.LANCZOS))


def _scaled(objects: Detections | Sample, scale: float) -> Detections | Sample:
    """The objects in the frame of the shrunk picture."""
    if isinstance(objects, Detections):
        return replace(objects, boxes_xyxy_px=objects.boxes_xyxy_px * scale)
    old = objects.instances
    boxes = Instances.build(old.boxes_xyxy_px * scale, old.class_ids, old.is_crowd)
    size_hw = (max(1, round(objects.size_hw[0] * scale)), max(1, round(objects.size_hw[1] * scale)))
    return replace(objects, image=Path(), size_hw=size_hw, instances=boxes)
