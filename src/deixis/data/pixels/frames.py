"""Frames from a folder of images, a video file, or an array: decoded when they are asked for, never all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from deixis.data.pixels.image_files import IMAGE_SUFFIXES, is_image_file, is_left_by_macos, natural_key
from deixis.data.pixels.images import image_sizes_hw, load_image
from deixis.data.pixels.video_file import VideoFrames
from deixis.errors import DataError
from deixis.video_records import Frames

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv"})


@dataclass(frozen=True)
class ImageFrames:
    """Image files in order."""

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise DataError("a clip needs at least one frame, got no image files")

    @cached_property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the first frame, from its header."""
        return image_sizes_hw(self._path(0))[0]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "h w 3"]:
        path = self._path(index)
        pixels = load_image(path)
        if pixels.shape[:2] != self.size_hw:
            raise DataError(
                f"{path}: frame {index} is {pixels.shape[:2]}, the first one {self.size_hw} (height, width); "
                "a clip's frames must be of one size"
            )
        return pixels

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return self.read(range(len(self)))

    def read(self, indices: Iterable[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Some frames, in the order given."""
        return (self[index] for index in indices)

    def _path(self, index: int) -> Path:
        path = self.paths[index]
        if not path.is_file():
            raise DataError(f"{path}: frame {index} of {len(self)} is missing; restore the file")
        return path


@dataclass(frozen=True)
class ArrayFrames:
    """Frames held in memory: for generated clips and short ones that are gone through many times."""

    pixels: UInt8[np.ndarray, "frames h w 3"]

    def __post_init__(self) -> None:
        if not self.pixels.size:
            raise DataError(f"a clip needs at least one frame with pixels, got shape {self.pixels.shape}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(self.pixels[index])

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return iter(self.pixels)

    def read(self, indices: Iterable[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Some frames, in the order given."""
        return (self.pixels[index] for index in indices)


def open_frames(path: str | Path) -> Frames:
    """The frames of a video file, or of a folder of images in the order of their names.

    Raises:
        DataError: nothing there, a folder without images, or a file that is not a video.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if is_image_file(file))
        if not files:
            raise DataError(f"{place}: no image files in it; give a folder of frames or a video file")
        return ImageFrames(tuple(sorted(files, key=natural_key)))
    if not place.is_file():
        raise DataError(f"{place}: no such video file or folder of frames")
    if place.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{place}: a picture is no video; give a video file, or the folder of its frames")
    frames = VideoFrames(place)
    _ = frames.size_hw  # a file that is not a video raises here
    return frames


def is_video_file(path: Path) -> bool:
    """Whether a file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not is_left_by_macos(path)


CODECS = ("libx264", "mpeg4")
"""The first that this FFmpeg has."""
MAX_PER_SECOND = 1000

WriteFrame = Callable[[UInt8[np.ndarray, "h w 3"]], None]


@contextmanager
def video_writer(path: Path, rate: Fraction | int = 24) -> Iterator[WriteFrame]:
    """A function that appends one RGB frame to an MP4; the file is whole when the block ends.

    The first frame sets the size. An odd last row or column is repeated, since the format requires even sides.

    Raises:
        DataError: the file cannot be written, or a frame is of another size than the first.
    """
    codec = next((name for name in CODECS if name in av.codecs_available), None)
    if codec is None:
        raise DataError(f"{path}: FFmpeg was built without {' and '.join(CODECS)}; videos cannot be written")
    streams: list[Any] = []  # filled by the first frame, whose size the stream takes
    try:
        with av.open(str(path), "w", format="mp4") as container:

            def write(frame: np.ndarray) -> None:
                even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                if not streams:
                    stream: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(MAX_PER_SECOND))
                    # what every player shows; it has one colour for 2 x 2 pixels, so sides must be even
                    stream.height, stream.width, stream.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
                    streams.append(stream)
                if even.shape[:2] != (streams[0].height, streams[0].width):
                    raise DataError(
                        f"{path}: a frame of {even.shape[:2]} in a video of {(streams[0].height, streams[0].width)} "
                        "(height, width); give frames of one size"
                    )
                container.mux(streams[0].encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

            yield write
            if streams:
                container.mux(streams[0].encode())  # the frames that the encoder still holds
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path}: cannot be written as a video ({error}); choose another output folder") from error
