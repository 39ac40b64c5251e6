"""Writing captions: entries of the plain JSON that training reads, and drawn images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.atomic_files import write_atomic
from deixis.geometry.rle import plain_rle
from deixis.inference.images import as_pixels
from deixis.inference.outputs.segmentations import DrawMasks
from deixis.refer_records import Caption, ReferSample


def image_name(sample: ReferSample, folder: Path, index: int) -> str:
    """The image's path relative to `folder`; an image without a file is written to `folder/images` first."""
    if isinstance(sample.image, Path):
        # `Path.relative_to` would fail for an image outside the folder
        return Path(os.path.relpath(sample.image.resolve(), folder.resolve())).as_posix()
    name = f"images/{index:06d}.png"
    encoded = io.BytesIO()
    Image.fromarray(sample.image).save(encoded, "PNG")
    write_atomic(folder / name, encoded.getvalue())
    return name


def plain_entry(sample: ReferSample, image: str, expressions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An image's entry in the plain JSON (docs/formats.md)."""
    height, width = sample.size_hw
    return {"image": image, "id": sample.image_id, "height": height, "width": width, "expressions": list(expressions)}


def plain_expression(caption: Caption, number: int, **more: Any) -> dict[str, Any]:
    """A caption with its mask; an empty caption is written without `text`, as a mask to be captioned."""
    text = {"text": [caption.text]} if caption.text.strip() else {}
    return {**text, "masks": [plain_rle(caption.mask_rle)], "id": number, "score": round(caption.score, 5), **more}


def write_picture(path: Path, sample: ReferSample, captions: Sequence[Caption], *, draw: DrawMasks) -> None:
    """Write the image with its regions and captions drawn in.

    Raises:
        DataError: the image cannot be read, or the file cannot be written.
    """
    masks = [np.asarray(coco_mask.decode(caption.mask_rle), dtype=bool) for caption in captions]
    drawn = draw(as_pixels(sample.image), masks, [caption.text for caption in captions])
    encoded = io.BytesIO()
    Image.fromarray(drawn).save(encoded, "JPEG", quality=92)
    write_atomic(path, encoded.getvalue())
