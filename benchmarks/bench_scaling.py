"""How a training step of the small detector grows with the image, the boxes, the prompt and the batch.

    python benchmarks/bench_scaling.py --write                       # 14 sizes
    python benchmarks/bench_scaling.py --values 2 --rounds 3 --write  # the ends of each axis

transformers' MM-Grounding-DINO beside ours, the same weights and inputs, everything trainable, single precision. One
axis at a time; the others stay at batch 4, 128 x 128 pixels, 5 boxes, 8 names.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace

import torch
from bench_detector import Problem, steps
from harness import ratios, table, time_interleaved, write_result
from transformers import MMGroundingDinoForObjectDetection
from transformers.utils import logging as transformers_logging

from deixis.batch_records import Target
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.grounding_dino.small import small_config

BASE = {"batch": 4, "image side, px": 128, "boxes an image": 5, "names in the prompt": 8}
AXES = {
    "image side, px": (64, 128, 256),
    "boxes an image": (0, 5, 20, 50),
    "names in the prompt": (1, 8, 30, 80),
    "batch": (1, 4, 8),
}


def problem_of(sizes: dict[str, int]) -> Problem:
    """Noise, names of two tokens, boxes spread at random."""
    torch.manual_seed(1)
    batch, side, boxes, names = (
        sizes["batch"],
        sizes["image side, px"],
        sizes["boxes an image"],
        sizes["names in the prompt"],
    )
    ids = [101, *(token for name in range(names) for token in (1100 + name, 1200 + name, 1012)), 102]
    rows = torch.zeros(names, len(ids))
    for name in range(names):
        rows[name, 1 + 3 * name : 3 + 3 * name] = 0.5
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), rows, (side, side), (side, side), 0)
    targets = [
        replace(
            target,
            boxes_cxcywh_norm=torch.cat([torch.rand(boxes, 2) * 0.6 + 0.2, torch.rand(boxes, 2) * 0.3 + 0.05], 1),
            class_ids=torch.randint(0, names, (boxes,)),
            image_id=image,
        )
        for image in range(batch)
    ]
    return Problem(torch.randn(batch, 3, side, side), torch.tensor([ids] * batch), targets)


def chosen(values: tuple[int, ...], count: int | None) -> list[int]:
    """So many of the values, evenly spread from the first to the last; all without a number.

    >>> chosen((0, 5, 20, 50), 2)
    [0, 50]
    """
    if count is None or count >= len(values):
        return list(values)
    return [values[round(place * (len(values) - 1) / max(1, count - 1))] for place in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--values", type=int, help="so many sizes of each axis, its ends first; all when not given")
    parser.add_argument("--batch", type=int, default=BASE["batch"], help="of the axes that do not vary it")
    parser.add_argument("--side", type=int, default=BASE["image side, px"], help="of the axes that do not vary it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()
    torch.manual_seed(0)
    config = small_config(2000)
    config.auxiliary_loss = True
    theirs = MMGroundingDinoForObjectDetection(config)
    ours = GroundingDino(config)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    base = BASE | {"batch": arguments.batch, "image side, px": arguments.side}
    rows = []
    for axis, values in AXES.items():
        for value in chosen(values, arguments.values):
            both = steps(ours, theirs, problem_of(base | {axis: value}), contextlib.nullcontext)
            timings = time_interleaved(both, arguments.rounds, warmup=0, settle=1)
            slow, fast = timings["transformers"], timings["deixis"]
            rows.append([axis, value, slow, fast, ratios(slow, fast)])
            print(*rows[-1], sep=" | ", flush=True)
    body = table(["axis", "value", "transformers, ms", "deixis, ms", "times faster"], rows)
    if arguments.write:
        write_result("scaling_small_detector", "A training step of the small detector, one axis at a time", body)


if __name__ == "__main__":
    main()
