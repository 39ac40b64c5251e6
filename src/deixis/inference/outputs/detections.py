"""Writing predictions: drawn images, a JSON file with all detections, and COCO results for evaluators."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.atomic_files import write_atomic
from deixis.errors import DataError
from deixis.inference.images import ImageInput, as_pixels
from deixis.records import Vocabulary
from deixis.results.detections import Detections

Draw = Callable[[UInt8[np.ndarray, "h w 3"], Detections], UInt8[np.ndarray, "h w 3"]]


def write_predictions(
    folder: Path,
    detections: Sequence[Detections],
    images: Sequence[ImageInput],
    *,
    draw: Draw | None = None,
    vocabulary: Vocabulary | None = None,
    model: str = "",
) -> None:
    """Write `predictions.json`, `coco_results.json` and, with `draw`, `pictures/*.jpg`.

    Args:
        detections: one record per image, in order.
        images: the files that were predicted on, or their pixels.
        draw: draws detections onto pixels (`deixis.results.draw.draw_detections`); None writes no images.
        vocabulary: has the COCO category ids; without it a category's id is its position among the names, from 1.
        model: what made the detections; written with each image.

    Raises:
        DataError: counts differ, an image cannot be read, or the folder cannot be written.
    """
    if len(detections) != len(images):
        raise DataError(f"{len(detections)} detection records for {len(images)} images; expected one per image")
    write_atomic(folder / "predictions.json", _json(prediction_records(detections, images, model)))
    write_atomic(folder / "coco_results.json", _json(coco_results(detections, vocabulary)))
    if draw is None:
        return
    for found, image, name in zip(detections, images, picture_names(images), strict=True):
        write_picture(folder / "pictures" / name, draw(as_pixels(image), found))


def write_picture(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a JPEG, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    write_atomic(path, jpeg(pixels))


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A drawn picture as the content of a file."""
    drawn = io.BytesIO()
    Image.fromarray(pixels).save(drawn, "JPEG", quality=92)
    return drawn.getvalue()


def prediction_records(
    detections: Sequence[Detections], images: Sequence[ImageInput], model: str = ""
) -> list[dict[str, Any]]:
    """One entry per image: file (or null), id, width and height in pixels, objects, best first, and the model."""
    return [
        {
            "file": str(image) if isinstance(image, str | Path) else None,
            "image_id": found.image_id,
            "width": found.size_hw[1],
            "height": found.size_hw[0],
            "objects": [
                {"label": label, "score": round(float(score), 5), "box_xyxy_px": [round(float(v), 2) for v in box]}
                for label, score, box in zip(found.labels, found.scores, found.boxes_xyxy_px, strict=True)
            ],
            **({"model": model} if model else {}),
        }
        for found, image in zip(detections, images, strict=True)
    ]


def coco_results(detections: Sequence[Detections], vocabulary: Vocabulary | None = None) -> list[dict[str, Any]]:
    """COCO results: image_id, category_id, bbox as [left, top, width, height] in pixels, score.

    Raises:
        DataError: a detected name is not in the vocabulary.
    """
    return [result for found in detections for result in found.to_coco(vocabulary)]


def picture_names(images: Sequence[ImageInput]) -> list[str]:
    """A JPEG name per drawn image: the file's stem, with a number if two share it."""
    taken: set[str] = set()
    names = []
    for i, image in enumerate(images):
        stem = Path(image).stem if isinstance(image, str | Path) else f"image_{i:05d}"
        name, number = stem, 1
        while name.lower() in taken:  # some file systems ignore case
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.jpg")
    return names


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
