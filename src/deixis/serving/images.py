"""Pictures of requests: base64 or a URL of an allowed host to pixels, within limits; and how forms become JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from starlette.datastructures import UploadFile
from starlette.requests import Request

from deixis.data.inputs.download import download
from deixis.data.pixels.images import decode_image, image_sizes_hw
from deixis.errors import DataError
from deixis.geometry.rle import counts_rle
from deixis.records import Rle
from deixis.serving.budget import Take
from deixis.serving.requests import MaskRle

_TEXTS = ("image", "model", "detector", "answer", "task", "path", "video")
_LISTS = ("names", "phrases")


class TooLargeError(DataError):
    """A picture or film of more pixels, frames or bytes than are taken."""


async def form_as_json(request: Request) -> bytes:
    """The body of a request as JSON; of a form, files are base64 and other fields are JSON or plain text.

    Raises:
        DataError: a form that is none.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    values: dict[str, Any] = {}
    async with request.form(max_files=1, max_fields=1000) as form:
        for key, value in form.multi_items():
            if isinstance(value, UploadFile):
                values[key] = base64.b64encode(await value.read()).decode()
            elif key in _LISTS and not value.lstrip().startswith("["):
                values.setdefault(key, []).append(value)
            else:
                values[key] = _plain(key, value)
    return json.dumps(values).encode()


def _plain(key: str, text: str) -> Any:
    if key in _TEXTS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def decoded_base64(name: str, text: str) -> bytes:
    """The bytes of a file in base64, with or without the head of a data URL.

    Raises:
        DataError: it is no base64.
    """
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise DataError(f"{name}: is no base64 of a file ({error})") from error


def pixels_of(
    image: str, *, max_pixels: int, allowed_hosts: Sequence[str], take: Take = lambda pixels: None
) -> UInt8[np.ndarray, "h w 3"]:
    """Upright RGB pixels of what a request has as its image.

    Args:
        take: told of the pixels before they are decoded.

    Raises:
        DataError: a URL of a host that is not allowed, no base64, or no image.
        TooLargeError: too many pixels.
    """
    if "://" in image[:20]:
        try:
            data = download(image, hosts=allowed_hosts)
        except DataError as error:
            raise DataError(f"image: {error}") from error
    else:
        data = decoded_base64("image", image)
    return checked_pixels("image", data, max_pixels, take)


def checked_pixels(
    name: str, data: bytes, max_pixels: int, take: Take = lambda pixels: None
) -> UInt8[np.ndarray, "h w 3"]:
    """Upright RGB pixels of an image file's content, whose size is checked before anything is decoded.

    Raises:
        DataError: no image.
        TooLargeError: too many pixels.
    """
    height, width = image_sizes_hw(name, data)[0]
    if height * width > max_pixels:
        raise TooLargeError(f"{name}: has {width}x{height} pixels, at most {max_pixels} are taken; make it smaller")
    take(height * width)
    return decode_image(data, name)


def mask_rles(masks: Sequence[MaskRle], size_hw: tuple[int, int]) -> tuple[Rle, ...]:
    """Masks of a request in the size of its image.

    Raises:
        DataError: one of another size, or whose counts do not fit.
    """
    found = []
    for number, mask in enumerate(masks, start=1):
        if tuple(mask.size) != size_hw:
            raise DataError(f"mask {number}: has size {mask.size}, its image {list(size_hw)} (height, width)")
        try:
            found.append(counts_rle(mask.counts, size_hw))
        except ValueError as error:
            raise DataError(f"mask {number}: {error}") from error
    return tuple(found)
