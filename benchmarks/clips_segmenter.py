"""Held-out clips: J&F of followed phrases with memory and frame by frame; late, vanishing and returning by themselves.

    python benchmarks/clips_segmenter.py --write
    python benchmarks/clips_segmenter.py --model runs/segmenter/teachers/sa2va --clips 4

The same phrases of the same generated clips, three ways: memory prompted in five frames of the clip; the same, looking
again in every fourth frame for what is lost; and each frame asked by itself.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from harness import table, write_result

from deixis.data.scenes.clip_scenes import ClipScenes, clip_scenes
from deixis.evaluation.video_jf import VideoMetrics
from deixis.inference.refer.track_metrics import FRAME_BY_FRAME, MEMORY, evaluate_tracks
from deixis.inference.refer.tracker import Tracker
from deixis.models.sa2va import load_sa2va
from deixis.progress_bar import ProgressBar
from deixis.recipes.refer.track import groups_of

PROMPT_FRAMES, PROMPT_EVERY = 5, 4


def measured(model: str, dataset: ClipScenes, device: str) -> tuple[dict[str, VideoMetrics], dict[str, float]]:
    """Metrics and minutes of each way."""
    bundle = load_sa2va(model)
    found, minutes = {}, {}
    for way, every, by_frame in (("memory, looking again", PROMPT_EVERY, False), ("memory", 0, True)):
        tracker = Tracker(bundle, device, prompt_frames=PROMPT_FRAMES, prompt_every=every, max_tiles=1)
        started = time.perf_counter()
        with ProgressBar(way) as progress:
            metrics = evaluate_tracks(tracker, dataset, by_frame, progress=progress)
        minutes[way + " and frame by frame" * by_frame] = (time.perf_counter() - started) / 60
        found[way] = metrics[MEMORY]
        if by_frame:
            found = {"frame by frame": metrics[FRAME_BY_FRAME], "memory": found.pop("memory"), **found}
    return found, minutes


def report(found: dict[str, VideoMetrics]) -> str:
    """J&F, and J and F behind it, of every group each way."""
    groups = {way: groups_of(metrics) for way, metrics in found.items()}
    rows: list[list[object]] = []
    for name, group in groups["memory"].items():
        cells = [f"{100 * of[name].jf:.1f} ({100 * of[name].j:.1f}, {100 * of[name].f:.1f})" for of in groups.values()]
        rows.append([name, group.phrases, *cells])
    for title, name in (
        ("frames without the object left empty", "absent_accuracy"),
        ("other frames not left empty", "present_accuracy"),
    ):
        shares = [getattr(metrics, name) for metrics in found.values()]
        rows.append([title, "", *("-" if math.isnan(share) else f"{100 * share:.1f}" for share in shares)])
    return table(["", "phrases", *(f"{way}: J&F % (J, F)" for way in found)], rows)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="a segmenter whose SAM 2 has a memory")
    parser.add_argument("--split", default="clip_seen", choices=["clip_seen", "clip_unseen"])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=24, help="of a clip")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data = f"scenes:split={arguments.split},count={arguments.clips},seed={arguments.seed}"
    clips = clip_scenes(arguments.split, arguments.clips, arguments.seed, arguments.frames)
    found, minutes = measured(arguments.model, clips, arguments.device)
    metrics = found["memory"]
    body = report(found) + (
        f"\n\nModel `{arguments.model}` on `{data}`: {metrics.clips} clips of {arguments.frames} frames, "
        f"all labelled. Memory is "
        f"prompted in {PROMPT_FRAMES} frames of the clip; *looking again* also looks in every {PROMPT_EVERY}th frame "
        "for what is lost; *frame by frame* asks the same segmenter in each frame by itself. *object*: in the first "
        "frame not yet to be seen (late), in the last no more (vanishes), gone in between (returns); one may be "
        f"several. Minutes: {', '.join(f'{way} {spent:.1f}' for way, spent in minutes.items())}."
    )
    print(body)
    if arguments.write:
        title = "Following phrases through held-out clips: memory against frame by frame"
        print(f"wrote {write_result(f'clips_segmenter_{arguments.split}', title, body, arguments.device)}")


if __name__ == "__main__":
    main()
