"""Videos and streams of `deixis annotate`: frames become image files, and after all are annotated, objects get ids."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deixis.atomic_files import write_atomic
from deixis.data.inputs.find import find_images
from deixis.data.inputs.pictures import Film, Frame
from deixis.data.pixels.frames import is_video_file
from deixis.data.pixels.images import load_image
from deixis.inference.detect.tracking import byte_tracker, tracked
from deixis.inference.outputs.annotations import image_key
from deixis.inference.outputs.videos import detection_video
from deixis.options.annotate import AnnotateOptions
from deixis.recipes.detect.predict_videos import video_names
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections

FRAMES = "frames"
"""Folder of the frames that are annotated, below --output."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video or stream whose frames became files.

    Attributes:
        name: of its files.
        keys: of the frames among all images, in order.
        rate: of these frames, per second.
    """

    name: str
    keys: tuple[str, ...]
    rate: Fraction


def images_and_frames(options: AnnotateOptions) -> tuple[dict[str, Path], dict[str, Frame], list[AnnotatedVideo]]:
    """All images by their names in the outputs, the frames that become some of them, and the videos.

    Raises:
        DataError: nothing is found, or a video cannot be read.
        OptionError: --track needs a library that is not installed.
    """
    if options.track:
        byte_tracker(1)  # an error before anything is read, if it is not installed
    if options.stream:
        return {}, {}, []
    found = find_images(options.images, videos=True)
    images = {image_key(image, options.output): image for image in found if not is_video_file(image)}
    files = [path for path in found if is_video_file(path)]
    videos, frames = [], dict[str, Frame]()
    for path, name in zip(files, video_names(files), strict=True):
        film = Film(path)
        # Nothing is decoded here: each frame is when its turn comes, and never all of them together.
        own = {frame_key(name, n): Frame(film, n) for n in range(0, len(film.frames), options.frame_step)}
        images |= {key: options.output / key for key in own}
        frames |= own
        videos.append(AnnotatedVideo(name, tuple(own), film.frames.rate / options.frame_step))
    return images, frames, videos


def frame_key(name: str, number: int) -> str:
    """The name in the outputs of a frame of a video.

    >>> frame_key("gate", 12)
    'frames/gate/000012.jpg'
    """
    return f"{FRAMES}/{name}/{number:06}.jpg"


def write_frame(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a frame as a JPEG.

    Raises:
        DataError: the file cannot be written.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    write_atomic(path, file.getvalue())


def write_videos(options: AnnotateOptions, videos: Sequence[AnnotatedVideo], entries: Sequence[dict[str, Any]]) -> None:
    """Write each video with its objects drawn in, JSON lines and MOT; with --track, `track_id` enters the objects.

    Args:
        entries: of all images; objects of frames are changed.

    Raises:
        DataError: a frame cannot be read, or the folder cannot be written.
    """
    by_key = {entry["image"]: entry for entry in entries}
    names = tuple(options.names) or tuple(sorted({found["name"] for entry in entries for found in entry["objects"]}))
    for video in videos:
        own = [by_key[key] for key in video.keys if key in by_key]
        frames: Iterator[Detections] = (_detections(entry, names or ("object",)) for entry in own)
        if options.track:
            frames = tracked(frames, 0.0, byte_tracker(float(video.rate)))
        with detection_video(options.output, video.name, rate=video.rate, names=names, draw=draw_detections) as add:
            for entry, found in zip(own, frames, strict=True):
                if found.track_ids is not None:
                    for one, track_id in zip(entry["objects"], found.track_ids.tolist(), strict=True):
                        one["track_id"] = track_id if track_id > 0 else None
                add(load_image(options.output / entry["image"]), found)


def _detections(entry: Mapping[str, Any], names: tuple[str, ...]) -> Detections:
    """The objects of an image, in their order."""
    objects = entry["objects"]
    scores = [one["predicted_iou"] if one["detector_score"] is None else one["detector_score"] for one in objects]
    return Detections(
        np.array([one["box_xyxy_px"] for one in objects], np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
        np.array([names.index(one["name"]) for one in objects], np.int64),
        names,
        size_hw=(int(entry["height"]), int(entry["width"])),
    )
