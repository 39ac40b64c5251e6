"""Tracks of CVAT's XML for videos: the shapes of every frame, and the pictures of the frames."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from deixis.data.formats.cvat.shapes import Shape, between
from deixis.data.pixels.image_files import is_image_file, natural_key
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError

if TYPE_CHECKING:
    from deixis.data.pixels.video_file import VideoFrames

_NAME = re.compile(r"frame_(\d{1,12})", re.IGNORECASE)
_FOLDERS = ("", "images", "data", "frames")
_VIDEOS = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"}


@dataclass(frozen=True)
class TrackedShape:
    """A shape of a track in a frame; outside, it is not visible from there on."""

    frame: int
    outside: bool
    shape: Shape


@dataclass(frozen=True)
class Track:
    """Shapes in the order of their frames."""

    shapes: tuple[TrackedShape, ...]

    def at(self, frame: int) -> Shape | None:
        """The shape in a frame: as listed, else between the listed ones around it; the last one stays to the end."""
        position = bisect_right(self.shapes, frame, key=lambda shape: shape.frame)
        if not position or self.shapes[position - 1].outside:
            return None
        before = self.shapes[position - 1]
        if before.frame == frame or position == len(self.shapes):
            return before.shape
        after = self.shapes[position]
        return between(before.shape, after.shape, (frame - before.frame) / (after.frame - before.frame))


@dataclass(frozen=True)
class VideoPictures:
    """Frames of a video as the content of PNG files, decoded when asked for; picklable for loading workers."""

    video: VideoFrames
    numbers: tuple[int, ...]

    def __call__(self, index: int) -> bytes:
        file = BytesIO()
        # quickly: it is decoded again at once
        Image.fromarray(self.video[self.numbers[index]]).save(file, "PNG", compress_level=1)
        return file.getvalue()


def frame_files(path: Path, images: Path | None, frames: Sequence[int]) -> dict[int, Path]:
    """The image files of frames beside the XML, or in `images`; none where there is no picture at all.

    CVAT names them `frame_000012`; pictures of other names are taken in the order of their names, with a warning.
    """
    places = [images] if images is not None else [path.parent / name for name in _FOLDERS]
    folders = [place for place in places if place.is_dir() and any(map(is_image_file, place.iterdir()))]
    if not folders:
        return {}
    files = sorted((file for file in folders[0].iterdir() if is_image_file(file)), key=natural_key)
    numbers = [_NAME.fullmatch(file.stem) for file in files]
    named = {int(found[1]): file for found, file in zip(numbers, files, strict=True) if found is not None}
    if named:
        wanted = frames if isinstance(frames, range) else frozenset(frames)
        return {frame: file for frame, file in sorted(named.items()) if frame in wanted}
    warnings.warn(
        f"{path}: no picture is called frame_{frames[0]:06d} or the like; took the {len(files)} of {folders[0]} in "
        "the order of their names",
        stacklevel=4,
    )
    return dict(zip(frames, files, strict=False))


def video_of(path: Path, images: Path | None, source: str) -> VideoFrames | None:
    """The video beside the XML: the one that it names, else the only one there is.

    Raises:
        DataError: there are several, none of that name.
    """
    from deixis.data.pixels.video_file import VideoFrames  # here, as decoding is slow to import

    if images is not None and images.is_file():
        return VideoFrames(images)
    places = [images] if images is not None else [path.parent / name for name in _FOLDERS]
    files = [file for place in places if place.is_dir() for file in sorted(place.iterdir())]
    videos = [file for file in files if file.suffix.lower() in _VIDEOS]
    meant = [file for file in videos if file.name == Path(source.replace("\\", "/")).name] or videos
    if len(meant) > 1:
        raise DataError(f"{path}: {len(meant)} videos are beside it, none called {source!r}; give one with --images")
    return VideoFrames(meant[0]) if meant else None


def one_size(files: Sequence[Path]) -> tuple[int, int]:
    """(height, width) of the first frame."""
    return image_sizes_hw(files[0])[0]
