"""Memory and time of following two phrases through videos of 50 to 2,000 frames, beside transformers' own session.

python benchmarks/bench_track.py --write
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from bench_streaming import resident_mb
from harness import table, write_result
from transformers import Sam2VideoInferenceSession

from deixis.inference.refer.tracker import Tracker
from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.small import small_segmenter

KEEPING = "deixis, phrases kept"
FRAMES = {"deixis": (50, 2000), KEEPING: (50, 2000), "transformers": (50, 500)}
SIZE_HW = (128, 128)
PHRASES = ("red circle", "blue square")
SETTLED = 25  # frames after which every buffer has been filled once


def main() -> None:
    """Follow in a process of its own for each length and each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--most", type=int, default=2000, help="cut longer videos to so many frames")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child[0], int(arguments.child[1]))))
        return
    rows = []
    for way, lengths in FRAMES.items():
        for frames in sorted({min(length, arguments.most) for length in lengths}):
            command = [sys.executable, __file__, "--child", way, str(frames)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            rows.append(
                [
                    way,
                    f"{frames:,}",
                    *(f"{found[name]:.1f}" for name in ("settled_mb", "end_mb", "grown_mb", "peak_mb", "frame_ms")),
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    heads = ["way", "frames", f"resident after {SETTLED} frames, MB", "at the end, MB", "grown, MB", "peak, MB"]
    body = table([*heads, "CPU ms a frame"], rows)
    body += (
        f"\n\nA small segmenter with random weights, {len(PHRASES)} phrases, frames of {SIZE_HW[0]} px drawn as they "
        "are asked for, prompted in the first frame. `transformers`: the same SAM 2 with `Sam2VideoInferenceSession`, "
        f"streaming, the same two masks; it has no language model. `{KEEPING}`: what phrases mean stays beside the "
        "memory, and prompts point first, as the built-in segmenter has it."
    )
    print(body)
    if arguments.write:
        write_result("track", "Following phrases through videos: memory and time", body)


def measure(way: str, frames: int) -> dict[str, float]:
    """Resident memory once settled and at the end, its peak, and the CPU time of a frame."""
    torch.manual_seed(0)
    bundle = small_segmenter(("red", "blue", "circle", "square"), memory=True)
    bundle.model.eval()
    with torch.no_grad():  # nothing is absent, so that everything is followed
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 5.0
    bundle.model.sam.config.keeps_phrases = bundle.model.sam.config.points_first = way == KEEPING
    steps = theirs(bundle, frames) if way == "transformers" else ours(bundle, frames)
    settled, started = 0.0, 0.0
    for number, _ in enumerate(steps):
        if number == SETTLED:
            settled, started = resident_mb(), time.process_time()
    spent = time.process_time() - started
    end = resident_mb()
    return {
        "settled_mb": settled,
        "end_mb": end,
        "grown_mb": end - settled,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "frame_ms": spent / (frames - 1 - SETTLED) * 1e3,
    }


def pictures(frames: int) -> Iterator[np.ndarray]:
    """Noise, one frame at a time."""
    rng = np.random.default_rng(0)
    for _ in range(frames):
        yield rng.integers(0, 256, (*SIZE_HW, 3), np.uint8)


def ours(bundle: Sa2vaBundle, frames: int) -> Iterator[object]:
    """Every frame's records."""
    return Tracker(bundle, prompts="first", prompt_frames=1).track(pictures(frames), PHRASES)


def theirs(bundle: Sa2vaBundle, frames: int) -> Iterator[object]:
    """Every frame's outputs."""
    session = Sam2VideoInferenceSession(dtype=torch.float32)
    side = bundle.sam_px
    for number, frame in enumerate(pictures(frames)):
        if number == 0:
            for index in range(len(PHRASES)):
                mask = torch.zeros(1, 1, side, side)
                mask[..., 20 + 30 * index : 60 + 30 * index, 20:80] = 1
                session.add_mask_inputs(session.obj_id_to_idx(index + 1), 0, mask)
                session.obj_with_new_inputs.append(index + 1)
        pixels = torch.from_numpy(frame.transpose(2, 0, 1).copy())
        yield bundle.model.sam(session, frame=bundle.normalise_sam(pixels[None])[0])


if __name__ == "__main__":
    main()
