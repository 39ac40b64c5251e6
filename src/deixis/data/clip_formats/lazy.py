"""What readers of clips share: clips that are opened one by one, values of JSON files, frames found on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import mask_rle, whole_number
from deixis.data.pixels.frames import ImageFrames
from deixis.data.reading import reading, shown
from deixis.errors import DataError
from deixis.records import Rle
from deixis.video_records import Clip

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
