"""Films: opened within limits, and followed frame by frame in turn with whatever else the models are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco_mask

from deixis.data.pixels.frames import video_writer
from deixis.data.pixels.video_file import VideoFrames
from deixis.geometry.rle import plain_rle
from deixis.inference.detect.detector import Detector
from deixis.inference.refer.segmenter import Segmenter
from deixis.inference.refer.tracker import Tracker
from deixis.refer_records import Segmentation
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections, draw_masks
from deixis.serving.answers import rounded
from deixis.serving.batches import Batches, StoppedError
from deixis.serving.images import TooLargeError
from deixis.serving.models import Models
from deixis.serving.requests import AskedTrack

Step = TypeVar("Step")
Row = dict[str, Any]
Draw = Callable[[], UInt8[np.ndarray, "h w 3"]]
_BATCH = 4  # frames: others wait for no more than these
FILM = "film.mp4"
"""The name of files with uploaded films: they are recognised by it, and read by what they contain."""


@dataclass(frozen=True)
class FilmLimits:
    """What a film may have; None is no limit.

    Attributes:
        max_pixels: of a frame.
    """

    max_frames: int | None = 300
    max_pixels: int = 50_000_000


def open_film(path: Path, limits: FilmLimits) -> VideoFrames:
    """The frames of a video file, nothing of which is decoded before it is within the limits.

    Raises:
        DataError: it is no video.
        TooLargeError: it is beyond a limit.
    """
    frames = VideoFrames(path)
    height, width = frames.stated_size_hw
    if height * width > limits.max_pixels:
        raise TooLargeError(f"video: has {width}x{height} pixels, at most {limits.max_pixels} are taken; scale it down")
    if limits.max_frames is not None and len(frames) > limits.max_frames:
        raise TooLargeError(
            f"video: has {len(frames)} frames, at most {limits.max_frames} are taken here; cut it, or make it a job"
        )
    return frames


def followed(models: Models, asked: AskedTrack, frames: VideoFrames) -> Iterator[tuple[Row, Draw]]:
    """For each frame what is found in it, and a function that draws that. Models are used in each step.

    Raises:
        OptionError: no such model is served.
    """
    if asked.phrases:
        return _by_phrase(models.segmenters[models.name("segmenter", asked.model)], asked, frames)
    return _by_name(models.detectors[models.name("detector", asked.model)], asked, frames)


def _by_name(detector: Detector, asked: AskedTrack, frames: VideoFrames) -> Iterator[tuple[Row, Draw]]:
    names = list(dict.fromkeys(asked.names)) or None
    rate = float(frames.rate)
    for found in detector.track(frames.path, names, asked.threshold, rate=rate, batch_size=_BATCH):
        objects = [
            {
                "label": one.label,
                "score": round(one.score, 5),
                "box_xyxy_px": rounded(one.box_xyxy_px),
                "track_id": one.track_id,
            }
            for one in found
        ]
        yield {"frame": found.image_id, "objects": objects}, _drawn_boxes(found)


def _drawn_boxes(found: Detections) -> Draw:
    return lambda: draw_detections(found.pixels(), found)


def _by_phrase(segmenter: Segmenter, asked: AskedTrack, frames: VideoFrames) -> Iterator[tuple[Row, Draw]]:
    tracker = Tracker(segmenter.bundle, segmenter.device, max_tiles=segmenter.max_tiles)
    for number, (pixels, records) in enumerate(tracker.follow(frames, list(dict.fromkeys(asked.phrases)))):
        objects = [
            {
                "phrase": one.text,
                "score": round(one.score, 5),
                "present": round(one.present, 5),
                "mask": plain_rle(one.mask_rle) if coco_mask.area(one.mask_rle) else None,
            }
            for one in records
        ]
        yield {"frame": number, "objects": objects}, _drawn_masks(pixels, records)


def _drawn_masks(pixels: UInt8[np.ndarray, "h w 3"], records: Sequence[Segmentation]) -> Draw:
    masks = [np.asarray(coco_mask.decode(one.mask_rle), bool) for one in records]
    return lambda: draw_masks(pixels, masks, [one.text for one in records])


def in_turn(batches: Batches, steps: Iterator[Step], stop: Event) -> Iterator[Step]:
    """Each step of an iterator that uses models, when the queue comes to it; ends early where `stop` is set.

    Raises:
        QueueFullError: at the first step, where too many requests wait.
    """
    limited = True
    try:
        while not stop.is_set():
            found = batches.call(lambda: next(steps, None), limited=limited).result()
            # A film that was begun is finished, however many wait.
            limited = False
            if found is None:
                return
            yield found
    finally:
        close = getattr(steps, "close", lambda: None)
        with suppress(StoppedError):  # then nothing else uses the models any more
            batches.call(close, limited=False).result()


def write_film(path: Path, rate: Fraction, drawn: Iterator[tuple[Row, Draw]]) -> Iterator[Row]:
    """The rows of a film, while its frames are drawn into a new one, which is whole when the iterator ends."""
    with video_writer(path, rate) as write:
        for row, draw in drawn:
            write(draw())
            yield row
