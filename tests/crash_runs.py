"""Runs that are killed at random moments and resumed: nothing may be lost, left behind, or end with other bits.

    scripts/crash_test [--kills 40] [--seed 0]

One run is left alone. Others of the same options are killed (SIGKILL to their whole process group, no chance to tidy
up) and started again with --auto-resume, again and again, until one ends by itself; it must have the same weights and
the same log. Half of the moments are drawn from the whole time of a run, half from the time in which it writes.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, finish, records, start, train_arguments, write_tiny_model

OPTIONS = (
    *(*EVERYTHING, "--epochs", "2", "--batch-size", "4", "--ema-decay", "0.9", "--save-interval", "1"),
    *("--data", "scenes:split=demo_train,count=16,seed=1", "--auto-resume", "--no-report"),
)
RUN_S = 3600  # these are run beside other work
WEIGHTS = ("checkpoints/last", "checkpoints/best", "teachers/grounding_dino")


def run_crashes(folder: Path, kills: int, seed: int, workers: int = 1) -> collections.Counter[str]:
    """Kill runs as often as asked; counts of what happened.

    Raises:
        AssertionError: a run could not be resumed, or ended in other weights, another log or with leftovers.
    """
    draw, counts = random.Random(seed), collections.Counter[str]()
    model = write_tiny_model(folder / "model")
    arguments = train_arguments(model, folder / "whole", *OPTIONS)
    finish(start(["--help"]), timeout_s=RUN_S)  # the first of all waits for imports, which are no part of a run
    began = time.monotonic()
    finish(start(arguments), timeout_s=RUN_S)
    whole_s = time.monotonic() - began
    while counts["kills"] < kills:
        output = folder / f"crashed_{counts['runs']}"
        arguments = train_arguments(model, output, *OPTIONS, "--workers", str(workers))
        while _interrupted(arguments, output / "detector", whole_s, draw, counts, counts["kills"] < kills):
            print(_line(counts), flush=True)
        counts["runs"] += 1
        require_same(output / "detector", folder / "whole" / "detector")
    return counts


def _interrupted(
    arguments: list[str],
    run: Path,
    whole_s: float,
    draw: random.Random,
    counts: collections.Counter[str],
    kill: bool,
) -> bool:
    """Start or resume a run; whether it was killed. Otherwise it has ended well."""
    process = start(arguments, new_session=True)
    if not kill:
        finish(process, timeout_s=RUN_S)
        return False
    if draw.random() < 0.5:
        until = time.monotonic() + draw.uniform(0, whole_s)
    else:
        while process.poll() is None and not (run / ".deixis-run.json").exists():
            time.sleep(0.01)
        until = time.monotonic() + draw.uniform(0, whole_s / 2)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    if process.poll() is not None:
        finish(process, timeout_s=RUN_S)
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    counts["kills"] += 1
    counts[f"killed {_place(run)}"] += 1
    return True


def _place(run: Path) -> str:
    """How far a killed run had come."""
    if not (run / "metrics.jsonl").exists():
        return "before its log"
    if any((run / "checkpoints").glob(".*")):
        return "while writing a checkpoint"
    if any((run / "teachers").glob("*")):
        return "after training"
    return "while training" if (run / "checkpoints" / "last").exists() else "before a checkpoint"


def require_same(run: Path, whole: Path) -> None:
    """The weights and the log of two runs are the same, and nothing half-written is left."""
    for name in WEIGHTS:
        mine, theirs = (load_file(folder / name / "model.safetensors") for folder in (run, whole))
        assert mine.keys() == theirs.keys(), name
        assert not [key for key in mine if not torch.equal(mine[key], theirs[key])], name
    assert records(run) == records(whole)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if "tensorboard" not in path.parts}
    expected = {str(path.relative_to(whole)) for path in whole.rglob("*") if "tensorboard" not in path.parts}
    assert files == expected
    assert not list(run.parent.glob("*.bak*"))


def _line(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def main() -> None:
    """As `scripts/crash_test` runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = run_crashes(Path(folder), arguments.kills, arguments.seed)
    print(f"{_line(counts)}: all ended with the bits of a run that nothing stopped")


if __name__ == "__main__":
    main()
