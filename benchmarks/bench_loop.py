"""Boxes drawn against AP: an active loop with a simulated annotator, in the order of the queue and in random order.

    python benchmarks/bench_loop.py --runs loop.jsonl --ground scenes --seeds 0 --orders worth     # one cell
    python benchmarks/bench_loop.py --runs loop.jsonl --ground cards --seeds 0 1 2 --orders worth random
    python benchmarks/bench_loop.py --runs loop.jsonl --write loop                                 # what is there

Pictures of shapes that the built-in detector has never seen, or photographs of playing cards; their labels are hidden,
and an annotator who knows them corrects what the model proposes. Each box counts that is drawn, or drawn anew because
its IoU with its object is below 0.75. Every round trains anew from the built-in detector, for the same number of steps,
and is measured once, at its end, on other pictures. A loop's rounds are appended to `--runs` when its last one is
finished; loops that are there are not repeated, so the command can be stopped and started again.
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
from learning_grounds import ground

from deixis.options.review.loop import LoopOptions
from deixis.recipes.review.loop import run_loop

KEY = ("ground", "order", "seed", "keep", "steps", "per_round", "pictures", "most")
FIGURES = ("round", "images", "boxes_drawn", "AP", "AP50")


def run(key: Mapping[str, Any], rounds: int) -> list[dict[str, Any]]:
    """One loop: a line for each round."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        on = ground(key["ground"], key["pictures"], key["seed"], Path(folder), most=key["most"])
        config = Path(folder) / "train.yaml"
        steps = key["steps"]
        settings = {"epochs": steps, "max_steps": steps, "evaluate_every": steps, "val_loss_images": 0}
        settings |= {"baseline": False, "report": False, "log_with": ["none"], "num_workers": 0, "gpus": 0}
        config.write_text(yaml.safe_dump({**settings, "keep": key["keep"]}))
        found = run_loop(
            LoopOptions(
                data=on.training,
                model="builtin",
                val_data=on.new,
                output=Path(folder) / "loop",
                per_round=key["per_round"],
                rounds=rounds,
                order=key["order"],
                train_config=config,
                simulate=True,
                seed=key["seed"],
                device="cpu",
            )
        )
    done = {"seconds": round(time.perf_counter() - started), "day": time.strftime("%Y-%m-%d")}
    return [{**key, **{name: one[name] for name in FIGURES}, "actions": one["actions"], **done} for one in found]


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The rounds of finished loops."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Boxes drawn and AP of each order and round: means over the seeds, half their range behind AP."""
    lines = [
        "| ground | keep | order | round | pictures | boxes drawn | AP | AP50 | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in sorted(runs, key=lambda one: (one["ground"], one["keep"], one["order"], one["round"])):
        groups.setdefault((one["ground"], one["keep"], one["order"], one["round"]), []).append(one)
    for (on, keep, order, number), of in groups.items():
        means = {name: statistics.mean(one[name] for one in of) for name in FIGURES}
        spread = (max(one["AP"] for one in of) - min(one["AP"] for one in of)) / 2
        lines.append(
            f"| {on} | {keep} | {order} | {number} | {means['images']:.0f} | {means['boxes_drawn']:.0f} | "
            f"{means['AP']:.3f} ± {spread:.3f} | {means['AP50']:.3f} | {len(of)} |"
        )
    return lines


def write(runs: Sequence[Mapping[str, Any]], name: str) -> Path:
    """The table as a file of `results/`."""
    first = runs[0]
    path = RESULTS / f"{name}_{hardware()}_{time.strftime('%Y-%m-%d')}.md"
    minutes = sum(one["seconds"] for one in runs if one["round"] == 1) / 60
    head = [
        "# Boxes drawn against AP: the order of the queue beside random order",
        "",
        f"A simulated annotator on {first['pictures']} pictures (scenes: generated, of unknown shapes; cards: "
        f"photographs), {first['per_round']} reviewed per round; the built-in detector, trained anew each round for "
        f"{first['steps']} steps of 4 pictures, with --keep as stated; AP on other pictures; ± is half the range over "
        f"the seeds. {minutes:.0f} minutes in all, beside other work.",
        "",
    ]
    path.write_text("\n".join([*head, *table(runs)]) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="file with one line per round of finished loops")
    parser.add_argument("--ground", choices=("scenes", "cards", "raccoon"), default="scenes", help="what is labelled")
    parser.add_argument("--orders", nargs="+", default=["worth", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--keep", choices=("none", "prompt"), default="none", help="of the training of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-round", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=60, help="pictures of which those to review are chosen")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps per round")
    parser.add_argument("--most", type=int, default=None, help="pictures measured; all if not given")
    parser.add_argument(
        "--write", nargs="?", const="loop", help="write what is finished to results/ under this name, train nothing"
    )
    given = parser.parse_args()
    if given.write:
        print(write(read_runs(given.runs), given.write))
        return
    for seed in given.seeds:
        for order in given.orders:
            values = (given.ground, order, seed, given.keep, given.steps, given.per_round, given.pictures, given.most)
            key = dict(zip(KEY, values, strict=True))
            there = [one["round"] for one in read_runs(given.runs) if all(one.get(name) == key[name] for name in KEY)]
            if len(there) >= given.rounds:
                continue
            lines = list(map(json.dumps, run(key, given.rounds)))
            with given.runs.open("a", encoding="utf-8") as file:
                file.write("\n".join([*lines, ""]))
            print(*lines, sep="\n", flush=True)
    print("\n".join(table(read_runs(given.runs))))


if __name__ == "__main__":
    main()
