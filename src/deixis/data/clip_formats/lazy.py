"""What readers of clips share: clips opened one by one, values of JSON files, frames, and PNGs of object numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import mask_rle, whole_number
from deixis.data.pixels.frames import ImageFrames
from deixis.data.reading import reading, require_regular, shown
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.video_records import Clip, Masklet

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class LazyClips:
    """Clips that are opened when they are asked for.

    Attributes:
        keys: what identifies each clip, such as its video's name.
        open_clip: gives the clip of a key; a function of a module, so that workers of a loader can be handed it.
        name: what reports call the data set.
        source: the file or folder that it was read from, for messages.
    """

    keys: tuple[Any, ...]
    open_clip: Callable[[Any], Clip]
    name: str
    source: str

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int, /) -> Clip:
        key = self.keys[index]
        video = key[0] if isinstance(key, tuple) else key
        where = str(video) if isinstance(video, Path) else f"{self.source}: video {video}"
        with reading(where, "a clip"):
            return self.open_clip(key)


def mask_or_none(value: Any, size_hw: tuple[int, int], where: str) -> Rle | None:
    """An RLE of a JSON file; None for null and for a mask without a pixel.

    Raises:
        DataError: no RLE, or one of another size.
    """
    if value is None:
        return None
    try:
        mask = mask_rle(value, size_hw)
    except ValueError as error:
        raise DataError(f"{where}: segmentation {error}; the frames are {size_hw} (height, width)") from error
    return mask if mask is not None and coco_mask.area(mask) else None


def field(content: Any, key: str, kind: type, where: str) -> Any:
    """A value of a JSON object.

    Raises:
        DataError: it is not there, or of another kind.
    """
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise DataError(f"{where}: expected {key!r} as {kind.__name__}, got {shown(value)}")
    return value


def whole(value: Any, where: str) -> int:
    """A number of a frame or an object.

    Raises:
        DataError: it is no whole number.
    """
    number = whole_number(value)
    if number is None:
        raise DataError(f"{where}: expected a whole number, got {shown(value)}; get the file again")
    return number


def frames_named(folder: Path, names: Sequence[str]) -> ImageFrames:
    """Frames by their names without suffix, which is the first frame's for all."""
    # The first frame tells: a video may have thousands of files.
    suffix = next((s for s in FRAME_SUFFIXES if (folder / f"{names[0]}{s}").is_file()), FRAME_SUFFIXES[0])
    return ImageFrames(tuple(folder / f"{name}{suffix}" for name in names))


def first_folder(places: Sequence[Path], what: str, where: str) -> Path:
    """The first of some folders that is there.

    Raises:
        DataError: none is.
    """
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError(f"{where}: {what} not found; looked for {', '.join(map(str, places))}")
    return found


VOID = 255  # in palette images pixels that nobody judged; in binary ones the object


def read_label_map(path: Path, size_hw: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The object numbers of a PNG; its size is compared with that of the frames before it is decoded.

    Raises:
        DataError: it cannot be read, is of another size, or has colours in place of numbers.
    """
    require_regular(path)
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != size_hw:
                raise DataError(f"{path}: is {(image.height, image.width)}, the frames are {size_hw} (height, width)")
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path}: has mode {image.mode}, expected a palette image whose pixels are object numbers; "
                    "take the original annotation, or save it with a palette"
                )
            return np.array(image, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds on damaged files
        raise DataError(f"{path}: cannot be read as an image ({error}); get the file again") from error


def masklets_of_maps(files: Sequence[Path], size_hw: tuple[int, int]) -> tuple[Masklet, ...]:
    """One masklet per object number, ascending, from the maps of all labelled frames. Files with 0 and 255 alone show
    one object, number 1.

    Raises:
        DataError: a file that is damaged, or of another size than the frames.
    """
    seen: list[dict[int, Rle]] = []
    for file in files:
        numbers = read_label_map(file, size_hw)
        # 0 is background in every one of these data sets.
        seen.append({int(n): bitmap_rle(numbers == n) for n in np.unique(numbers) if n})
    found = sorted({number for masks in seen for number in masks})
    if found == [VOID]:
        return (Masklet(tuple(masks.get(VOID) for masks in seen), 1),)
    return tuple(Masklet(tuple(masks.get(n) for masks in seen), n) for n in found if n != VOID)
