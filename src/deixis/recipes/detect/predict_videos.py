"""The videos of `deixis detect predict`: each frame's objects, tracked if asked; drawn video, JSON lines and MOT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from deixis.data.inputs.stream import Stream, until_it_breaks
from deixis.data.pixels.frames import is_video_file, open_frames
from deixis.data.pixels.video_file import VideoFrames
from deixis.errors import DataError, OptionError
from deixis.inference.detect.detector import Detector
from deixis.inference.images import Picture, find_images
from deixis.inference.outputs.detection_lines import DetectionLines
from deixis.inference.outputs.videos import LABELS, detection_video
from deixis.options.detect_predict import DetectPredictOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.outputs import warn
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections
from deixis.text import one_line

FOLDER_RATE = 30
"""Frames per second of a folder of frames."""


@dataclass(frozen=True)
class _Counts:
    frames: int = 0
    objects: int = 0
    tracks: int = 0


def images_and_videos(options: DetectPredictOptions) -> tuple[list[Path], list[Path]]:
    """The images that --images names, and the videos; with --track a folder of images is a video too.

    Raises:
        DataError: a path does not exist, or there is nothing to read.
        OptionError: --track is given an image by itself.
    """
    if options.stream:
        return [], []
    found = find_images(options.images, videos=True)
    videos = [path for path in found if is_video_file(path)]
    images = [path for path in found if not is_video_file(path)]
    if not options.track:
        return images, videos
    folders = [path for path in options.images if path.is_dir()]
    for image in images:
        if not any(image.is_relative_to(folder) for folder in folders):
            raise OptionError(f"--track: {image} is an image; give a video, or the folder of its frames")
    return [], list(dict.fromkeys([*videos, *(image.parent for image in images)]))


def predict_videos(
    options: DetectPredictOptions, detector: Detector, lines: DetectionLines, videos: Sequence[Path]
) -> str:
    """Write the results of each video that is not done; returns what was found, for the last line of the command.

    A video that cannot be read is reported and left out.

    Args:
        videos: files, or folders of frames.

    Raises:
        DataError: none can be read.
    """
    done: list[_Counts] = []
    unreadable: list[str] = []
    for video, name in zip(videos, video_names(videos), strict=True):
        known = lines.video(video)
        # Tracked and untracked results differ, so the other kind is done anew.
        if known is not None and known.get("track") == options.track:
            done.append(_Counts(known["frames"], known["objects"], known["tracks"]))
            continue
        try:
            frames = open_frames(video)
            rate = frames.rate if isinstance(frames, VideoFrames) else Fraction(FOLDER_RATE)
            counts = _one(options, detector, _Film(name, frames, rate, len(frames)), lines.names)
        except DataError as error:
            unreadable.append(one_line(error))
            warn(f"left out: {unreadable[-1]}")
            continue
        lines.add_video(video, track=options.track, frames=counts.frames, objects=counts.objects, tracks=counts.tracks)
        done.append(counts)
    if not done:
        raise DataError(f"none of {len(videos)} videos can be read; the first: {unreadable[0]}")
    frames, objects, tracks = (sum(getattr(one, part) for one in done) for part in ("frames", "objects", "tracks"))
    followed = f" on {tracks} tracks" if options.track else ""
    return f"{objects} objects{followed} in {frames} frames of {len(done)} videos"


def video_names(videos: Sequence[Path]) -> list[str]:
    """A name per video for its files: its own without suffix, with a number if two share it.

    >>> video_names([Path("a/gate.mp4"), Path("b/Gate.mov")])
    ['gate', 'Gate_2']
    """
    taken = {LABELS}
    names = []
    for video in videos:
        stem = video.stem if is_video_file(video) else video.resolve().name
        name, number = stem, 1
        while name.lower() in taken:  # some file systems ignore case
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def predict_stream(options: DetectPredictOptions, detector: Detector, stream: Stream, names: Sequence[str]) -> str:
    """Write the results of a stream, until it ends, is interrupted or has sent --max-frames; returns what was found.

    A stream that breaks off leaves the results of the frames that came.

    Raises:
        DataError: it sends no frame.
    """
    frames = until_it_breaks(islice(stream, options.max_frames), warn)
    film = _Film(stream.name, frames, stream.rate, options.max_frames)
    counts = _one(options, detector, film, names, interruptible=True)
    followed = f" on {counts.tracks} tracks" if options.track else ""
    return f"{counts.objects} objects{followed} in {counts.frames} frames of {stream.shown}"


@dataclass(frozen=True)
class _Film:
    """Frames, in order, under a name for the files about them; `count` is None where it is not known."""

    name: str
    frames: Iterable[np.ndarray]
    rate: Fraction
    count: int | None


def _one(
    options: DetectPredictOptions,
    detector: Detector,
    film: _Film,
    names: Sequence[str],
    *,
    interruptible: bool = False,
) -> _Counts:
    """Write the results of one video; if `interruptible`, an interrupt ends it, and what is done by then is kept."""
    found_in = _found(options, detector, _pictures(film), names=names, rate=film.rate)
    count = objects = 0
    tracks: set[int] = set()
    with (
        ProgressBar(film.name) as progress,
        detection_video(options.output, film.name, rate=film.rate, names=names, draw=draw_detections) as add,
    ):
        try:
            for found in found_in:
                add(found.pixels(), found)
                count, objects = count + 1, objects + len(found)
                tracks.update(() if found.track_ids is None else found.track_ids[found.track_ids > 0].tolist())
                progress(count, film.count)
        except KeyboardInterrupt:
            if not interruptible or not count:
                raise
    return _Counts(count, objects, len(tracks))


def _found(
    options: DetectPredictOptions,
    detector: Detector,
    pictures: Iterator[Picture],
    *,
    names: Sequence[str],
    rate: Fraction,
) -> Iterator[Detections]:
    most, batch = options.max_detections, options.batch_size
    if options.track:
        return detector.track(
            pictures, names, options.threshold, rate=float(rate), max_detections=most, batch_size=batch
        )
    return detector.stream(pictures, names, options.threshold, max_detections=most, batch_size=batch)


def _pictures(film: _Film) -> Iterator[Picture]:
    """Each frame with its pixels, decoded once and held until it is written."""
    for number, pixels in enumerate(film.frames):
        yield Picture(f"{film.name}#{number}", pixels)
