"""Measure how well phrases are followed through annotated clips."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.clip_formats import read_clips
from deixis.evaluation.video_jf import GroupJF, VideoMetrics
from deixis.inference.refer.track_metrics import FRAME_BY_FRAME, MEMORY, evaluate_tracks
from deixis.options.refer_track import ReferTrackOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.refer.track import make_tracker
from deixis.recipes.run.owned_output import writes_output

WAYS = {MEMORY: "memory", FRAME_BY_FRAME: "frame by frame"}


@writes_output("metrics.json")
def measure_tracks(options: ReferTrackOptions) -> dict[str, VideoMetrics]:
    """Print J, F and J&F overall, by presence and by tags, and write `metrics.json`; the metrics by way.

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
            f"{WAYS[way]}: {_percent(metrics.absent_accuracy)} % of the frames without the object left empty, "
            f"{_percent(metrics.present_accuracy)} % of the others not",
            markup=False,
        )
    values = {way: metrics.as_dict() for way, metrics in found.items()}
    write_atomic(options.output / "metrics.json", json.dumps(values, indent=2) + "\n")
    console.print(f"see {options.output / 'metrics.json'}", markup=False)
    return found


def groups_of(metrics: VideoMetrics) -> dict[str, GroupJF]:
    """All phrases, then each group, by the name that tables give it."""
    by_presence = {f"object: {name}": group for name, group in metrics.presence.items()}
    return {"all": metrics.whole, **by_presence, **{f"tag: {name}": group for name, group in metrics.tags.items()}}


def metrics_table(found: Mapping[str, VideoMetrics]) -> Table:
    """One line a group, J&F, J and F of each way side by side."""
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
