"""Images to predict on: files, PIL images and arrays, read one at a time."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.data.pixels.image_files import IMAGE_SUFFIXES, is_image_file, unread_pictures
from deixis.data.pixels.images import load_image
from deixis.errors import DataError
from deixis.records import Instances, Sample, Vocabulary

ImageInput = str | Path | Image.Image | np.ndarray
_PROBE_SHORT_PX = 64  # decoding a large JPEG at an eighth of its size is enough to find damage, and fast


class Pictures:
    """Images without annotations as a data set; each is read on access."""

    def __init__(self, images: Sequence[ImageInput], vocabulary: Vocabulary) -> None:
        self.images = images
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Sample:
        pixels = as_pixels(self.images[index])
        height, width = pixels.shape[:2]
        return Sample(pixels, (height, width), Instances.none(), self.vocabulary, image_id=index)


def as_pixels(image: ImageInput) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file, a PIL image or an array of shape (height, width, 3).

    A file's EXIF rotation is applied; a PIL image is used as it is, so that boxes fit its own `size`.

    Raises:
        DataError: a file that cannot be read, or an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return load_image(Path(image))
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise DataError(
                f"a PIL image of mode {image.mode} has no defined range of brightness; convert it to RGB first"
            )
        opaque = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
        if opaque.mode == "RGBA":
            opaque = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
        return np.asarray(opaque)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"an image array must be uint8 RGB of shape (h, w, 3), got {image.dtype} of shape {image.shape}"
        )
    return image


def find_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Image files from files, folders (searched recursively) and glob patterns, each once, in order.

    Raises:
        DataError: a path does not exist, a pattern matches nothing, or there is no image at all.

    >>> find_images("photographs/*.jpg")  # doctest: +SKIP
    [PosixPath('photographs/a.jpg'), PosixPath('photographs/b.jpg')]
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(_expand(Path(path))))
    if not found:
        raise DataError("no images to read: give image files, folders or patterns such as 'photographs/*.jpg'")
    return list(found)


def readable_images(images: Sequence[Path], warn: Callable[[str], None]) -> list[Path]:
    """Those that can be decoded; `warn` is called with a line for each of the others, so that a long run goes on.

    Raises:
        DataError: none can be decoded.
    """
    found, first = [], ""
    for path in images:
        try:
            load_image(path, _PROBE_SHORT_PX)
        except DataError as error:
            line = " ".join(str(error).split())
            first = first or line
            warn(f"left out: {line}")
        else:
            found.append(path)
    if images and not found:
        raise DataError(f"none of {len(images)} images can be read; the first: {first}")
    return found


def _expand(path: Path) -> list[Path]:
    """The image files that one argument stands for."""
    if path.is_file():
        return [path]  # named by the user: whether it is an image is left to the decoder
    if path.is_dir():
        everything = sorted(p for p in path.rglob("*") if p.is_file())
        files = [file for file in everything if is_image_file(file)]
        left = unread_pictures(everything)
        if not files:
            hint = f"; {left}" if left else ""
            raise DataError(f"{path}: no image in this folder; looked for {', '.join(sorted(IMAGE_SUFFIXES))}{hint}")
        if left:
            warnings.warn(f"{path}: {left}", stacklevel=3)
        return files
    if any(character in str(path) for character in "*?["):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
        files = sorted(match for match in matches if is_image_file(match))
        if not files:
            raise DataError(f"{path}: the pattern matches no image")
        return files
    raise DataError(f"{path}: no such file or folder; --images takes files, folders and patterns")
