"""Small videos and faithful miniatures of the public data sets of clips: the same files, keys and quirks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE_HW = (32, 48)


def moving_bar(count: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """Frames that can be told apart after lossy coding: grey levels that tell the number, and a bar that wanders."""
    frames = np.zeros((count, *size_hw, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = 30 + (i * 37) % 200
        frame[:, i % size_hw[1]] = 255
    return frames


def video(path: Path, frames: np.ndarray, codec: str = "mpeg4", gop: int = 6, bframes: int = 0, fps: int = 24) -> Path:
    """A video file of some frames, with a key frame every `gop` frames and nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=Fraction(fps), options={"sc_threshold": "0" if codec == "libx264" else "1000000000"}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, bframes
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
