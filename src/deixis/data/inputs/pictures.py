"""Whatever a caller has as pictures, prepared by one function: `each_picture`.

    a path, a folder, a glob pattern, a URL           "photos/", "*.jpg", "https://example.org/a.jpg"
    a video                                           one picture per frame, decoded forwards
    the address of a video, or of a camera            "rtsp://10.0.0.7/gate", "https://example.org/a.mp4", "camera:0"
    the content of an image file                      bytes, or an open binary file
    a PIL image
    an array (h, w), (h, w, 1), (h, w, 3), (h, w, 4)  uint8, uint16, bool, or floats of [0, 1] or [0, 255]
    a tensor (c, h, w) or (h, w)                      the same; a batch (n, c, h, w) is n pictures
    any number of these                               a list, a generator, a batch (n, h, w, 3)

Files are decoded only when a picture is asked for, so a folder may be larger than the memory.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.data.inputs.arrays import rgb_of_array, rgb_of_pil
from deixis.data.inputs.download import download, is_url
from deixis.data.inputs.find import expand
from deixis.data.inputs.stream import Stream, is_stream
from deixis.data.pixels.frames import VIDEO_SUFFIXES
from deixis.data.pixels.images import decode_image, load_image
from deixis.data.pixels.video_file import VideoFrames
from deixis.errors import DataError

ImageInput = Any
"""One picture, or several; see the module."""
MAX_BYTES = 1 << 28  # of the content of an image file that is no file
_ACCEPTED = "a path, a folder, a pattern, a URL, a PIL image, an array, a tensor, the bytes of an image file, a video"


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, decoded when it is asked for.

    Attributes:
        name: its path, URL or place among the inputs, for messages and file names.
        source: what `load` decodes.
        path: its file; None where it has none of its own.
    """

    name: str
    source: Any
    path: Path | None = None

    def load(self) -> UInt8[np.ndarray, "h w 3"]:
        """Upright RGB pixels.

        Raises:
            DataError: it cannot be read.
        """
        return as_pixels(self.source, self.name)

    @property
    def stem(self) -> str:
        """A name for files that are written about it."""
        if self.path is not None:
            return self.path.stem
        cleaned = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.name.rsplit("/", 1)[-1])
        return cleaned.rsplit(".", 1)[0].strip("._") or "image"


def as_pixels(image: ImageInput, name: str = "image") -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of one picture.

    A file's EXIF rotation is applied; a PIL image is used as it is, so that boxes fit its own `size`.

    Raises:
        DataError: it cannot be read, or is no picture.
    """
    if isinstance(image, Picture):
        return image.load()
    if isinstance(image, str) and is_url(image):
        return decode_image(download(image), image)
    if isinstance(image, str | PathLike):
        return load_image(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), name)
    if isinstance(image, Frame):
        return image.film.frame(image.number)
    if isinstance(image, Image.Image):
        return rgb_of_pil(image)
    if isinstance(image, np.ndarray):
        return rgb_of_array(image, name)
    if _is_tensor(image):
        return rgb_of_array(_channels_last(image), name)
    raise DataError(f"{name} is a {type(image).__name__}; expected {_ACCEPTED}")


def each_picture(images: ImageInput) -> Iterator[Picture]:
    """The pictures of one input or of several, in order; folders, patterns and videos stand for all they contain.

    Raises:
        DataError: an input is none of those of the module, does not exist, or contains no picture. Raised when it is
            reached, as inputs may come from a generator.
    """
    if _is_one(images):
        yield from _expanded(images, "image")
        return
    if isinstance(images, np.ndarray) or _is_tensor(images):
        if images.ndim != 4 and not _holds_objects(images):
            raise DataError(
                f"an image of shape {tuple(images.shape)} is none; expected (h, w), (h, w, 3) or a batch (n, h, w, 3)"
            )
    elif isinstance(images, dict) or not isinstance(images, Iterable):
        raise DataError(f"images is a {type(images).__name__}; expected {_ACCEPTED}, or a list of these")
    for number, image in enumerate(images):
        name = f"image {number}"
        if not _is_one(image):
            shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
            raise DataError(f"{name} is a {type(image).__name__}{shape}; expected {_ACCEPTED}")
        yield from _expanded(image, name)


def _is_one(image: Any) -> bool:
    """Whether an input is one picture, file or folder, and not a collection of them."""
    if isinstance(image, np.ndarray) or _is_tensor(image):
        return image.ndim in (2, 3) and not _holds_objects(image)
    known = str | PathLike | Image.Image | bytes | bytearray | memoryview | Picture
    return isinstance(image, known) or hasattr(image, "read")


def _holds_objects(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "O"


def _expanded(image: Any, name: str) -> Iterator[Picture]:
    if isinstance(image, Picture):
        yield image
    elif isinstance(image, str) and is_stream(image):
        stream = Stream(image)
        for number, pixels in enumerate(stream):
            yield Picture(f"{stream.shown}#{number}", pixels)
    elif isinstance(image, str) and is_url(image):
        yield Picture(image, image)
    elif isinstance(image, str | PathLike):
        for path in expand(Path(image)):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield from _frames(path)
            else:
                yield Picture(str(path), path, path)
    elif hasattr(image, "read") and not isinstance(image, Image.Image):
        yield Picture(str(getattr(image, "name", name)), _content(image, name))
    else:
        yield Picture(str(getattr(image, "filename", "") or name), image)


def _content(file: Any, name: str) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if not isinstance(content, bytes):
        raise DataError(f"{name} is a file opened as text; open it with mode 'rb'")
    if len(content) > MAX_BYTES:
        raise DataError(f"{name} is longer than {MAX_BYTES >> 20} MB; expected the content of an image file")
    return content


def _frames(path: Path) -> Iterator[Picture]:
    film = Film(path)
    for number in range(len(film.frames)):
        yield Picture(f"{path}#{number}", Frame(film, number))


class Film:
    """A video whose frames are asked for in nearly their order, perhaps by several threads: each is decoded once.

    Memory does not grow with its length: the last few frames are kept.
    """

    KEPT, SKIPPED = 32, 32

    def __init__(self, path: Path) -> None:
        self.path, self.frames = path, VideoFrames(path)
        self._lock = Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._reading: Iterator[np.ndarray] = iter(())
        self._next = -1

    def frame(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a frame.

        Raises:
            DataError: it cannot be decoded.
        """
        with self._lock:
            if number in self._kept:
                return self._kept[number]
            # Decoding forwards to a frame a little ahead is cheaper than a seek to the key frame before it.
            if self._next < 0 or not 0 <= number - self._next <= self.SKIPPED:
                self._reading, self._next = self.frames.read(range(number, len(self.frames))), number
            while self._next <= number:
                wanted, self._next = self._next, -1  # stays so where decoding fails: the next call starts anew
                self._kept[wanted] = next(self._reading)
                self._next = wanted + 1
                if len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            return self._kept[number]

    def __reduce__(self) -> tuple[type[Film], tuple[Path]]:
        return Film, (self.path,)


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video, by number."""

    film: Film
    number: int


def _is_tensor(image: Any) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported torch
    return torch is not None and isinstance(image, torch.Tensor)


def _channels_last(image: Any) -> np.ndarray:
    """A tensor (c, h, w), (h, w, c) or (h, w) as an array; the first where both are possible."""
    tensor = image.detach().cpu()
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return array.transpose(1, 2, 0)
    return array
