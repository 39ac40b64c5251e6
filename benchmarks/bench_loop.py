"""Boxes drawn against AP: an active loop with a simulated annotator, in the order of the queue and in random order.

    python benchmarks/bench_loop.py --runs loop.jsonl                     # scenes, three rounds, seed 0, both orders
    python benchmarks/bench_loop.py --runs loop.jsonl --seeds 0 1 2 --orders worth random uncertainty
    python benchmarks/bench_loop.py --runs loop.jsonl --write             # the table of what is there

Pictures of shapes that the built-in detector has never seen; their labels are hidden, and an annotator who knows them
corrects what the model proposes. Each box counts that is drawn, or drawn anew because its IoU with its object is below
0.75. Every round trains anew from the built-in detector, for the same number of steps, and is measured once, at its
end, on other pictures. Each finished round is a line of `--runs`; loops that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness import RESULTS, hardware

from deixis.options.review.loop import LoopOptions
from deixis.recipes.review.loop import run_loop

TRAINING = "scenes:split=demo_train,count={count},seed={seed}"
MEASURED = "scenes:split=demo_val,count=60,seed=2"


def run(order: str, seed: int, *, rounds: int, per_round: int, steps: int, count: int) -> list[dict[str, Any]]:
    """One loop: a line for each round."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "train.yaml"
        settings = {"epochs": steps, "max_steps": steps, "evaluate_every": steps, "val_loss_images": 0}
        settings |= {"baseline": False, "report": False, "log_with": ["none"], "num_workers": 0, "gpus": 0}
        config.write_text(yaml.safe_dump(settings))
        found = run_loop(
            LoopOptions(
                data=TRAINING.format(count=count, seed=100 + seed),
                model="builtin",
                val_data=MEASURED,
                output=Path(folder) / "loop",
                per_round=per_round,
                rounds=rounds,
                order=order,  # type: ignore[arg-type]
                train_config=config,
                simulate=True,
                seed=seed,
                device="cpu",
            )
        )
    key = {"order": order, "seed": seed, "steps": steps, "per_round": per_round, "pictures": count}
    seconds = round(time.perf_counter() - started)
    return [{**key, **{name: one[name] for name in FIGURES}, "actions": one["actions"], "s": seconds} for one in found]


FIGURES = ("round", "images", "boxes_drawn", "AP", "AP50")


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Boxes drawn and AP of each order and round: means over the seeds, half their range behind AP."""
    lines = ["| order | round | pictures | boxes drawn | AP | AP50 | seeds |", "|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in sorted(runs, key=lambda one: (one["order"] == "random", one["order"], one["round"])):
        groups.setdefault((one["order"], one["round"]), []).append(one)
    for (order, number), of in groups.items():
        means = {name: statistics.mean(one[name] for one in of) for name in FIGURES}
        spread = (max(one["AP"] for one in of) - min(one["AP"] for one in of)) / 2
        lines.append(
            f"| {order} | {number} | {means['images']:.0f} | {means['boxes_drawn']:.0f} | {means['AP']:.3f} ± "
            f"{spread:.3f} | {means['AP50']:.3f} | {len(of)} |"
        )
    return lines


def write(runs: Sequence[Mapping[str, Any]]) -> Path:
    """The table as a file of `results/`."""
    first = runs[0]
    path = RESULTS / f"loop_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
    head = [
        "# Boxes drawn against AP: the order of the queue beside random order",
        "",
        f"A simulated annotator on {first['pictures']} generated pictures of unknown shapes, {first['per_round']} "
        f"reviewed per round; the built-in detector, trained anew each round for {first['steps']} "
        f"steps of 4 pictures; AP on {MEASURED}; ± is half the range over the seeds. Beside other work.",
        "",
    ]
    path.write_text("\n".join([*head, *table(runs)]) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="file with one line per finished round")
    parser.add_argument("--orders", nargs="+", default=["worth", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-round", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps per round")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    lines = given.runs.read_text().splitlines() if given.runs.exists() else []
    runs = [json.loads(line) for line in lines]
    for seed in given.seeds:
        for order in given.orders:
            if any((one["order"], one["seed"]) == (order, seed) for one in runs) or given.write:
                continue
            sizes = {"rounds": given.rounds, "per_round": given.per_round, "steps": given.steps}
            found = run(order, seed, count=given.pictures, **sizes)
            with given.runs.open("a") as file:
                file.writelines(json.dumps(one) + "\n" for one in found)
            runs += found
    print("\n".join(table(runs)))
    if given.write:
        print(f"wrote {write(runs)}")


if __name__ == "__main__":
    main()
