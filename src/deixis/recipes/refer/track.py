"""Follow what phrases mean through a video and write it down, frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from pycocotools import mask as coco_mask

from deixis.console import Console
from deixis.data.pixels.frames import open_frames
from deixis.data.pixels.video_file import VideoFrames
from deixis.inference.outputs.tracks import MASKS, VIDEO, track_writer
from deixis.inference.refer.tracker import Tracker
from deixis.models.folders import model_folder
from deixis.models.sa2va import load_sa2va
from deixis.models.sa2va.weights.pretrained import HUB_FILES, read_sam
from deixis.options.checks import A_SEGMENTER
from deixis.options.refer_track import ReferTrackOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.owned_output import writes_output
from deixis.reporting.draw_masks import draw_masks

RATE = 24
"""Frames a second of a folder of frames."""


def track(options: ReferTrackOptions) -> None:
    """Follow phrases through a video, or measure it on the annotated clips of `--data`."""
    from deixis.recipes.refer.measure_tracks import measure_tracks  # which builds its tracker here

    (track_video if options.data is None else measure_tracks)(options)


@writes_output(MASKS, VIDEO)
def track_video(options: ReferTrackOptions) -> Path:
    """Write masks of every frame as JSON and the video with the masks drawn in; the folder.

    The video is read frame by frame, and of sampled frames once more; memory does not grow with its length.

    Raises:
        DeixisError: options, video or model cannot be used.
    """
    options.check()
    frames = open_frames(options.video)
    total = len(frames)
    tracker = make_tracker(options)
    rate = frames.rate if isinstance(frames, VideoFrames) else Fraction(RATE)
    seen = [0] * len(options.phrases)
    drawing = draw_masks if options.draw else None
    with (
        ProgressBar("frames") as progress,
        track_writer(options.output, options.video.name, options.phrases, rate=rate, draw=drawing) as add,
    ):
        for number, (pixels, records) in enumerate(tracker.follow(frames, options.phrases), 1):
            add(pixels, records)
            for phrase, record in enumerate(records):
                seen[phrase] += int(coco_mask.area(record.mask_rle)) > 0
            progress(number, total)
    console = Console(highlight=False)
    for text, count in zip(options.phrases, seen, strict=True):
        console.print(f"{text}: seen in {count} of {total} frames", markup=False)
    console.print(f"see {options.output}", markup=False)
    return options.output


def make_tracker(options: ReferTrackOptions) -> Tracker:
    """The segmenter, with its own memory or another SAM 2's, on its device."""
    example = "facebook/sam2-hiera-large"
    sam = None if options.sam_model is None else read_sam(model_folder(options.sam_model, HUB_FILES, example))
    bundle = load_sa2va(options.model)
    video = None if options.data else options.video
    warn_of_shapes(bundle.record, options.model, f"--model {A_SEGMENTER}", options.data, video)
    return Tracker(
        bundle,
        choose_device(options.device),
        options.prompts,
        options.prompt_frames,
        options.together,
        options.prompt_every,
        options.threshold,
        options.generate,
        options.batch_size,
        options.max_tiles,
        sam,
    )
