"""Pictures to predict on, read one at a time; `data.inputs.pictures` says what may be one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deixis.data.inputs.find import find_images
from deixis.data.inputs.pictures import ImageInput, Picture, as_pixels, each_picture
from deixis.data.pixels.images import load_image
from deixis.errors import DataError
from deixis.records import Instances, Sample, Vocabulary
from deixis.text import one_line

__all__ = ["ImageInput", "Picture", "as_pixels", "each_picture", "find_images", "readable_images", "sample_of"]

_PROBE_SHORT_PX = 64  # decoding a large JPEG at an eighth of its size is enough to find damage, and fast


def sample_of(picture: Picture, vocabulary: Vocabulary) -> Sample:
    """A picture without annotations, decoded."""
    pixels = picture.load()
    height, width = pixels.shape[:2]
    return Sample(pixels, (height, width), Instances.none(), vocabulary)


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
            line = one_line(error)
            first = first or line
            warn(f"left out: {line}")
        else:
            found.append(path)
    if images and not found:
        raise DataError(f"none of {len(images)} images can be read; the first: {first}")
    return found
