"""What clients send: an image and what is asked about it, as JSON or as a form."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import urllib.request
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.requests import Request

from deixis.data.inputs.download import MAX_BYTES, TIMEOUT_S
from deixis.data.pixels.images import decode_image, image_sizes_hw
from deixis.errors import DataError
from deixis.geometry.rle import counts_rle
from deixis.records import Rle

Text = Annotated[str, Field(min_length=1, max_length=200)]
_MAX_OBJECTS = 1000


class TooLargeError(DataError):
    """An image of more pixels than are taken."""


class Asked(BaseModel):
    """What all requests have."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="the content of an image file as base64, or a URL of a host that is allowed")
    model: str = Field("", description="the name of a served model; the first if not given")
    answer: Literal["json", "picture"] = Field("json", description="JSON, or the image with the answer drawn, as PNG")


class AskedDetect(Asked):
    """Find named things."""

    names: list[Text] = Field([], max_length=_MAX_OBJECTS, description="what to look for; the model's own if empty")
    threshold: float | None = Field(None, ge=0, le=1)
    max_detections: int = Field(100, ge=1, le=_MAX_OBJECTS)


class AskedSegment(Asked):
    """The mask of each phrase, or of the object in each box."""

    phrases: list[Text] = Field([], max_length=100)
    boxes: list[Annotated[list[float], Field(min_length=4, max_length=4)]] = Field(
        [], max_length=100, description="corners [x1, y1, x2, y2] in pixels; phrases, if given, say what is in each"
    )


class MaskRle(BaseModel):
    """COCO's run lengths: `size` is [height, width], `counts` text or numbers."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str | list[int]


class AskedDescribe(Asked):
    """A caption of each mask."""

    masks: list[MaskRle] = Field(min_length=1, max_length=100)


class AskedAnnotate(Asked):
    """Boxes, masks and captions of named things or, without names, of whatever is there."""

    detector: str = ""
    names: list[Text] = Field([], max_length=100)
    threshold: float | None = Field(None, ge=0, le=1)
    max_objects: int = Field(50, ge=1, le=200)


async def form_as_json(request: Request) -> bytes:
    """The body of a request as JSON; of a form, `image` is a file and other fields are JSON or plain text.

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
            elif key in ("names", "phrases") and not value.lstrip().startswith("["):
                values.setdefault(key, []).append(value)
            else:
                values[key] = _plain(key, value)
    return json.dumps(values).encode()


def _plain(key: str, text: str) -> Any:
    if key in ("image", "model", "detector", "answer"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def pixels_of(image: str, *, max_pixels: int, allowed_hosts: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Upright RGB pixels of what a request has as its image.

    Raises:
        DataError: a URL of a host that is not allowed, no base64, or no image.
        TooLargeError: too many pixels.
    """
    if "://" in image[:20]:
        data = _download(image, allowed_hosts)
    else:
        try:
            data = base64.b64decode(image.partition("base64,")[2] or image, validate=True)
        except (ValueError, binascii.Error) as error:
            raise DataError(f"image: is no base64 of an image file ({error})") from error
    height, width = image_sizes_hw("image", data)[0]
    if height * width > max_pixels:
        raise TooLargeError(f"image: has {width}x{height} pixels, at most {max_pixels} are taken; make it smaller")
    return decode_image(data, "image")


def _download(url: str, allowed_hosts: Sequence[str]) -> bytes:
    """A file of a host that the operator has named; a redirect could lead elsewhere, so none is followed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise DataError(f"image: {url[:100]!r} is no URL ({error})") from error
    if parts.scheme not in ("http", "https") or host not in allowed_hosts:
        allowed = f"those of {', '.join(allowed_hosts)}" if allowed_hosts else "none"
        raise DataError(
            f"image: URLs of {host or parts.scheme!r} are not fetched; allowed are {allowed}; send the file"
        )
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), urllib.request.HTTPErrorProcessor()):
        opener.add_handler(handler)
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "deixis"}), timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"image: {url[:100]!r} cannot be fetched ({error})") from error
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"image: {url[:100]!r} has more than {MAX_BYTES >> 20} MB")
    return data


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
