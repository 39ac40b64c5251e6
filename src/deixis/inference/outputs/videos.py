"""Detections in a video as files, written frame by frame: the drawn video, JSON lines, and MOT's text.

videos/NAME.mp4     H.264, objects drawn in
videos/NAME.jsonl   one line per frame: {"video", "frame", "time_s", "width", "height", "objects": [{"label", "score",
                    "box_xyxy_px", "track_id"}]}; frames count from 0, track_id is null where an object is not tracked
mot/NAME.txt        MOTChallenge: frame, id, left, top, width, height, score, class, visibility; frames, ids and classes
                    count from 1, pixels from 0, as CVAT and `trackers` read them. Tracked objects only; without
                    tracking all objects, with id -1
mot/labels.txt      the class names, one per line, as CVAT reads them beside it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deixis.atomic_files import file_aside, write_atomic
from deixis.data.pixels.frames import video_writer
from deixis.errors import DataError
from deixis.results.detections import Detections

VIDEOS, MOT = "videos", "mot"
LABELS = "labels"
AddFrame = Callable[[UInt8[np.ndarray, "h w 3"], Detections], None]


@contextmanager
def detection_video(
    folder: Path, name: str, *, rate: Fraction | float, names: Sequence[str], draw: Any
) -> Iterator[AddFrame]:
    """Yields a function that takes each frame with its detections, in order. The files appear when the block succeeds.

    Args:
        name: of the files, without a suffix.
        rate: frames per second.
        names: of all classes.
        draw: draws detections onto a frame (`deixis.results.draw.draw_detections`).

    Raises:
        DataError: the folder cannot be written, or frames are of several sizes.
    """
    rate = Fraction(rate)
    try:
        with ExitStack() as opened:
            # Entered after its file and so left before it: the video is whole when it takes its name.
            paint = opened.enter_context(
                video_writer(opened.enter_context(file_aside(folder / VIDEOS / f"{name}.mp4")), rate)
            )
            drafts = [folder / VIDEOS / f"{name}.jsonl", folder / MOT / f"{name}.txt"]
            lines, mot = (
                opened.enter_context(
                    opened.enter_context(file_aside(path)).open("w", encoding="utf-8", errors="backslashreplace")
                )
                for path in drafts
            )
            numbers = iter(range(1 << 62))

            def add(pixels: UInt8[np.ndarray, "h w 3"], found: Detections) -> None:
                number = next(numbers)
                lines.write(json.dumps(frame_record(found, name, number, rate), ensure_ascii=False) + "\n")
                mot.writelines(mot_lines(found, number))
                paint(draw(pixels, found))

            yield add
        write_atomic(folder / MOT / f"{LABELS}.txt", "".join(f"{label}\n" for label in names))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another --output") from error


def frame_record(found: Detections, video: str, number: int, rate: Fraction) -> dict[str, Any]:
    """A frame's line."""
    return {
        "video": video,
        "frame": number,
        "time_s": round(float(number / rate), 4),
        "width": found.size_hw[1],
        "height": found.size_hw[0],
        "objects": [
            {
                "label": one.label,
                "score": round(one.score, 5),
                "box_xyxy_px": [round(value, 2) for value in one.box_xyxy_px],
                "track_id": one.track_id,
            }
            for one in found
        ],
    }


def mot_lines(found: Detections, number: int) -> list[str]:
    """A frame's lines in MOTChallenge's form; see the module."""
    lines = []
    for one in found:
        left, top, right, bottom = one.box_xyxy_px
        if found.track_ids is None or one.track_id is not None:
            values = [left, top, right - left, bottom - top]
            box = ",".join(f"{value:.2f}" for value in values)
            lines.append(f"{number + 1},{one.track_id or -1},{box},{one.score:.5f},{one.class_id + 1},1\n")
    return lines
