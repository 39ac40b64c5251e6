"""Writing segmentations: drawn images, mask files, and a JSON file with all answers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.atomic_files import write_atomic
from deixis.geometry.rle import plain_rle
from deixis.inference.images import ImageInput, as_pixels
from deixis.refer_records import Segmentation

DrawMasks = Callable[
    [UInt8[np.ndarray, "h w 3"], Sequence[Bool[np.ndarray, "h w"]], Sequence[str]], UInt8[np.ndarray, "h2 w2 3"]
]


def write_masks(
    folder: Path, found: Sequence[Segmentation], image: ImageInput, *, name: str, draw: DrawMasks | None = None
) -> None:
    """Write an image's `masks/<image>_<n>.png` (255 inside) and, with `draw`, `pictures/<name>`.

    Args:
        name: of the drawn image, from `picture_names`.

    Raises:
        DataError: the image cannot be read, or the folder cannot be written.
    """
    bitmaps = [np.asarray(coco_mask.decode(answer.mask_rle), dtype=bool) for answer in found]
    for number, bitmap in enumerate(bitmaps):
        write_atomic(folder / mask_file(name, number), _encoded(bitmap.astype(np.uint8) * 255, "PNG"))
    if draw is not None:
        drawn = draw(as_pixels(image), bitmaps, [answer.text for answer in found])
        write_atomic(folder / "pictures" / name, _encoded(drawn, "JPEG"))


def write_answers(
    folder: Path, answers: Sequence[Sequence[Segmentation]], images: Sequence[ImageInput], names: Sequence[str]
) -> None:
    """Write `segmentations.json`: the answers of all images, with the names of their mask files.

    Raises:
        DataError: the folder cannot be written.
    """
    records = [
        {
            "file": str(image) if isinstance(image, str | Path) else None,
            "phrases": [
                {**segmentation_record(answer), "mask": mask_file(name, number)} for number, answer in enumerate(found)
            ],
        }
        for found, image, name in zip(answers, images, names, strict=True)
    ]
    write_atomic(folder / "segmentations.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")


def mask_file(name: str, number: int) -> str:
    """The mask of an answer in an image whose drawn file has this name, below the output folder."""
    return f"masks/{Path(name).stem}_{number}.png"


def segmentation_record(answer: Segmentation) -> dict[str, Any]:
    """An answer as plain values: text, answer, scores, box [left, top, width, height], area in pixels, COCO RLE."""
    return {
        "image_id": answer.image_id,
        "text": answer.text,
        "answer": answer.answer,
        "score": round(answer.score, 5),
        "present": round(answer.present, 5),
        "bbox": [float(v) for v in coco_mask.toBbox(answer.mask_rle)],
        "area": int(coco_mask.area(answer.mask_rle)),
        "segmentation": plain_rle(answer.mask_rle),
    }


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return written.getvalue()
