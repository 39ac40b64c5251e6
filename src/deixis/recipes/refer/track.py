"""Track phrases through a video and write their masks; or through annotated clips, and measure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from pycocotools import mask as coco_mask
from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.clip_formats import read_clips
from deixis.data.pixels.frames import open_frames
from deixis.data.pixels.video_file import VideoFrames
from deixis.evaluation.video_jf import GroupJF, VideoMetrics
from deixis.inference.outputs.tracks import MASKS, VIDEO, track_writer
from deixis.inference.refer.track_metrics import FRAME_BY_FRAME, MEMORY, evaluate_tracks
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
from deixis.results.draw import draw_masks

RATE = 24
"""Frames per second of a folder of frames."""
WAYS = {MEMORY: "memory", FRAME_BY_FRAME: "frame by frame"}


def track(options: ReferTrackOptions) -> None:
    """Track phrases through a video, or measure that on the annotated clips of `--data`."""
    (track_video if options.data is None else measure_tracks)(options)


@writes_output(MASKS, VIDEO)
def track_video(options: ReferTrackOptions) -> Path:
    """Write masks of every frame as JSON and the video with the masks drawn in; returns the folder.

    The video is read frame by frame, sampled frames twice; memory does not grow with its length.

    Raises:
        DeixisError: options, video or model cannot be used.
    """
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
        console.print(f"{text}: visible in {count} of {total} frames", markup=False)
    console.print(f"see {options.output}", markup=False)
    return options.output


def make_tracker(options: ReferTrackOptions) -> Tracker:
    """The segmenter, with its own memory or that of --sam-model, on its device."""
    example = "facebook/sam2-hiera-large"
    sam = None if options.sam_model is None else read_sam(model_folder(options.sam_model, HUB_FILES, example))
    bundle = load_sa2va(options.model)
    video = None if options.data else options.video
    warn_of_shapes(bundle.record, options.model, f"--model {A_SEGMENTER}", options.data, video)
    return Tracker(
        bundle,
        choose_device(options.device),
        options.prompts,
        prompt_frames=options.prompt_frames,
        prompt_every=options.prompt_every,
        threshold=options.threshold,
        generate=options.generate,
        batch_size=options.batch_size,
        max_tiles=options.max_tiles,
        sam=sam,
    )


@writes_output("metrics.json")
def measure_tracks(options: ReferTrackOptions) -> dict[str, VideoMetrics]:
    """Track the phrases of annotated clips; print J, F and J&F overall, by presence and by tags, and write them.

    Returns:
        The metrics with memory and, on request, frame by frame.

    Raises:
        DeixisError: options, clips or model cannot be used.
    """
    options.check()
    dataset = read_clips(str(options.data), options.videos, max_clips=options.max_clips)
    tracker = make_tracker(options)
    with ProgressBar("clips") as progress:
        found = evaluate_tracks(tracker, dataset, options.frame_by_frame, progress=progress)
    console = Console(highlight=False)
    console.print(metrics_table(found))
    for way, metrics in found.items():
        console.print(
            f"{WAYS[way]}: {_percent(metrics.absent_accuracy)} % of the frames without the object are left empty, "
            f"{_percent(metrics.present_accuracy)} % of the others are not",
            markup=False,
        )
    values = {way: metrics.as_dict() for way, metrics in found.items()}
    write_atomic(options.output / "metrics.json", json.dumps(values, indent=2) + "\n")
    console.print(f"see {options.output / 'metrics.json'}", markup=False)
    return found


def groups_of(metrics: VideoMetrics) -> dict[str, GroupJF]:
    """All phrases, then each group, by its name in tables."""
    by_presence = {f"object: {name}": group for name, group in metrics.presence.items()}
    return {"all": metrics.whole, **by_presence, **{f"tag: {name}": group for name, group in metrics.tags.items()}}


def metrics_table(found: Mapping[str, VideoMetrics]) -> Table:
    """One line per group: J&F, J and F with memory and frame by frame, side by side."""
    groups = {way: groups_of(metrics) for way, metrics in found.items()}
    any_way = next(iter(found.values()))
    table = Table(title=f"{any_way.whole.phrases} phrases in {any_way.clips} clips")
    for heading in ("", "phrases", *(f"{name} %\n{WAYS[way]}" for way in found for name in ("J&F", "J", "F"))):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for name, group in next(iter(groups.values())).items():
        cells = [_percent(value) for of in groups.values() for value in (of[name].jf, of[name].j, of[name].f)]
        table.add_row(name, str(group.phrases), *cells)
    return table


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
