"""Video files, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from deixis.errors import DataError

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
    streams: list[Any] = []
    try:
        with av.open(str(path), "w", format="mp4") as container:

            def write(frame: np.ndarray) -> None:
                even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                if not streams:
                    stream: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(MAX_PER_SECOND))
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
                container.mux(streams[0].encode())
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path}: cannot be written as a video ({error}); choose another output folder") from error
