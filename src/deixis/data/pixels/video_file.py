"""Frames of a video file (MP4 and whatever else FFmpeg reads), by number, through PyAV.

A file is gone through once without decoding to learn the time stamp of every frame. So frame numbers are exact, also
where frames differ in duration, and a frame in the middle is reached by decoding from the key frame before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Int, UInt8

from deixis.data.pixels.mp4_boxes import check_boxes
from deixis.data.reading import reading
from deixis.errors import DataError

MAX_FRAME_PIXELS = 1 << 27  # twice 16K; decoding takes several frames' memory
# What PyAV raises on damaged files; its errors derive from these. OSError covers unreadable ones.
AV_ERRORS = (av.FFmpegError, OSError, ValueError, EOFError)


@dataclass(frozen=True)
class PacketIndex:
    """What is known of a file's frames without decoding them: 8 bytes per frame.

    Attributes:
        shown_at: time stamp of every frame, ascending, in the stream's own unit.
        key_frames: numbers of the frames that can be decoded by themselves, ascending.
        key_decoded_at: where decoding of each key frame starts, in the same unit.
    """

    shown_at: Int[np.ndarray, " frames"]
    key_frames: Int[np.ndarray, " keys"]
    key_decoded_at: Int[np.ndarray, " keys"]


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video file's first video stream, upright. One decoded frame is held at a time."""

    path: Path

    @cached_property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels as the frames are shown, from the first of them."""
        return self[0].shape[:2]

    @property
    def stated_size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels as the file's head states them; no frame is decoded."""
        with self._opened() as (_, stream):
            return int(stream.codec_context.height), int(stream.codec_context.width)

    @cached_property
    def rate(self) -> Fraction:
        """Frames per second, on average; 24 where the file does not state it."""
        with self._opened() as (_, stream):
            return Fraction(stream.average_rate or 24)

    @cached_property
    def index(self) -> PacketIndex:
        """Time stamps of all frames; reads the file once."""
        with self._opened() as (container, stream):
            packets = [
                (_first_known(packet.pts, packet.dts), _first_known(packet.dts, packet.pts), packet.is_keyframe)
                for packet in container.demux(stream)
                # The last packet is an empty request to flush; discarded ones are decoded but never shown (edit lists).
                if packet.size and not packet.is_discard
            ]
            stated = stream.frames
        if len(packets) < max(stated, 1):
            raise DataError(
                f"{self.path}: ends after {len(packets)} of {max(stated, 1)} frames; the file is cut off, get it again"
            )
        packets.sort(key=lambda packet: packet[0])  # files hold frames in the order of decoding
        shown_at, decoded_at, is_key = (np.array(values, np.int64) for values in zip(*packets, strict=True))
        keys = np.flatnonzero(is_key)
        if not len(keys):
            raise DataError(f"{self.path}: has no frame that decoding can start from; get the file again")
        return PacketIndex(shown_at, keys, decoded_at[keys])

    def __len__(self) -> int:
        return len(self.index.shown_at)

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "h w 3"]:
        return next(self.read([index]))

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return self.read(range(len(self)))

    def read(self, indices: Iterable[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Some frames, in the order given; those between are decoded only from the last key frame on.

        Raises:
            DataError: a frame that cannot be decoded, by its number.
            IndexError: a number that the file has no frame of.
        """
        numbers = list(indices)
        outside = next((number for number in numbers if not 0 <= number < len(self)), None)
        if outside is not None:
            raise IndexError(f"{self.path}: frame {outside} of {len(self)}")
        with self._opened() as (container, stream):
            decoded: Iterator[Any] = iter(())
            position = None  # of the frame decoded last
            for number in numbers:
                # the last key frame up to this number; -1 where there is none
                key = int(self.index.key_frames.searchsorted(number, side="right")) - 1
                start = int(self.index.key_frames[key]) if key >= 0 else 0
                # Decoding goes on to a frame ahead, unless a key frame on the way is nearer to it.
                if position is None or number <= position or start > position + 1:
                    container.seek(int(self.index.key_decoded_at[max(key, 0)]), stream=stream)
                    decoded = container.decode(stream)
                position = number
                pixels = self._frame(decoded, number)
                known = self.__dict__.get("size_hw", pixels.shape[:2])  # decoded for a clip, not for one frame alone
                if pixels.shape[:2] != known:
                    raise DataError(
                        f"{self.path}: frame {number} is {pixels.shape[:2]}, the first one {known} (height, width); "
                        "a clip's frames must be of one size: convert the video"
                    )
                yield pixels

    def _frame(self, decoded: Iterator[Any], number: int) -> UInt8[np.ndarray, "h w 3"]:
        """The frame of a number, from a decoder positioned before it."""
        wanted = int(self.index.shown_at[number])
        try:
            for frame in decoded:
                at = _first_known(frame.pts, frame.dts)
                if at == wanted and not frame.is_corrupt:
                    require_size(self.path, frame.height, frame.width)
                    return upright(frame)
                if at >= wanted:
                    break
        except AV_ERRORS as error:
            raise self._damaged(number, str(error)) from error
        raise self._damaged(number, "it is not in the file, or damaged")

    def _damaged(self, number: int, why: str) -> DataError:
        return DataError(f"{self.path}: frame {number} of {len(self)} cannot be decoded ({why}); get the file again")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        with reading(self.path, "a video"):
            try:
                check_boxes(self.path)
                with av.open(str(self.path)) as container:
                    if not container.streams.video:
                        raise DataError(f"{self.path}: has no video stream; give a video file")
                    stream = container.streams.video[0]
                    require_size(self.path, stream.codec_context.height, stream.codec_context.width)
                    yield container, stream
            except FileNotFoundError as error:
                raise DataError(f"{self.path}: video file not found; check the path") from error
            except MemoryError as error:  # PyAV's is an FFmpegError too
                raise DataError(
                    f"{self.path}: its headers ask for more memory than there is; it is probably damaged, get it again"
                ) from error
            except AV_ERRORS as error:
                raise DataError(f"{self.path}: cannot be read as a video ({error}); get the file again") from error


def rate_of(video: Any) -> float:
    """Frames per second of a video file; 30 where it is not one."""
    is_video = isinstance(video, str | PathLike) and Path(video).is_file()
    return float(VideoFrames(Path(video)).rate) if is_video else 30.0


def require_size(path: Path | str, height: int, width: int) -> None:
    """Before anything of the size that a file states is allocated."""
    if height * width > MAX_FRAME_PIXELS:
        raise DataError(
            f"{path}: has frames of {width}x{height}, at most {MAX_FRAME_PIXELS} pixels are read; scale the video down"
        )


def _first_known(*values: int | None) -> int:
    """A frame without a time stamp is taken to come first."""
    return next((value for value in values if value is not None), 0)


def upright(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, rotated as the file states (phones film sideways)."""
    pixels = frame.to_ndarray(format="rgb24")
    # `frame.rotation` is counter-clockwise, like `rot90`
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
