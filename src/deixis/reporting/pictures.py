"""Validation pictures inside the report: annotations, and detections before and after training."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.records import Detections, Instances, Sample
from deixis.reporting.data import PictureComparison
from deixis.reporting.draw import draw_detections
from deixis.reporting.markup import escape

PICTURE_THRESHOLD = 0.3
"""Only detections that score at least this are drawn."""
LONG_SIDE_PX = 560


def picture_rows(pictures: Sequence[PictureComparison]) -> str:
    """HTML of all pictures, each a row of annotations, before and after; empty without pictures."""
    if not pictures:
        return ""
    note = f'<p class="faint small">Drawn: detections that score {PICTURE_THRESHOLD} or more.</p>'
    return note + "".join(_row(picture) for picture in pictures)


def annotated_pictures(samples: Iterable[Sample]) -> str:
    """HTML of pictures with their annotations, three beside each other; empty without pictures."""
    figures = []
    for sample in samples:
        assert isinstance(sample.image, np.ndarray)
        scale = min(1.0, LONG_SIDE_PX / max(sample.size_hw))
        drawn = draw_detections(_shrunk(sample.image, scale), _scaled(sample, scale))
        caption = f"{sample.source or sample.image_id}: {len(sample.instances)} objects"
        figures.append(_figure(caption, drawn))
    return f'<div class="pictures" style="--count:3">{"".join(figures)}</div>' if figures else ""


def _figure(caption: str, drawn: UInt8[np.ndarray, "h w 3"]) -> str:
    alt = escape(caption)
    return f'<figure><img alt="{alt}" src="{data_uri(drawn)}"><figcaption>{alt}</figcaption></figure>'


def _row(picture: PictureComparison) -> str:
    columns: list[tuple[str, Detections | Sample]] = [(f"Annotated: {picture.title}", picture.truth)]
    if picture.before is not None:
        columns.append(("Before training", picture.before.above(PICTURE_THRESHOLD)))
    columns.append(("After training", picture.after.above(PICTURE_THRESHOLD)))
    scale = min(1.0, LONG_SIDE_PX / max(picture.pixels.shape[:2]))
    pixels = _shrunk(picture.pixels, scale)
    figures = "".join(
        _figure(caption, draw_detections(pixels, _scaled(objects, scale))) for caption, objects in columns
    )
    return f'<div class="pictures" style="--count:{len(columns)}">{figures}</div>'


def _shrunk(pixels: UInt8[np.ndarray, "h w 3"], scale: float) -> UInt8[np.ndarray, "h2 w2 3"]:
    if scale == 1:
        return pixels
    size_wh = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size_wh, Image.Resampling.LANCZOS))


def _scaled(objects: Detections | Sample, scale: float) -> Detections | Sample:
    """The objects in the frame of the shrunk picture."""
    if isinstance(objects, Detections):
        return replace(objects, boxes_xyxy_px=objects.boxes_xyxy_px * scale)
    old = objects.instances
    boxes = Instances.build(old.boxes_xyxy_px * scale, old.class_ids, old.is_crowd)
    size_hw = (max(1, round(objects.size_hw[0] * scale)), max(1, round(objects.size_hw[1] * scale)))
    return replace(objects, image=Path(), size_hw=size_hw, instances=boxes)


def data_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as the source of an <img>, JPEG."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
