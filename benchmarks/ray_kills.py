"""`--engine ray` while its workers are killed (SIGKILL) at random moments: the files beside the local engine's.

python benchmarks/ray_kills.py --write
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from bench_ray import NAMES, start_ray, write_pictures
from harness import table, write_result
from pyarrow.parquet import read_table

from deixis.models.builtin import BUILTIN
from deixis.options.detect_predict import DetectPredictOptions
from deixis.recipes.detect.predict import predict_detector
from deixis.recipes.engine.cluster import require_ray
from deixis.recipes.engine.items import Item
from deixis.recipes.engine.parts import Answer, Parts

ROWS = 4


def main() -> None:
    """One run of the local engine, one that is disturbed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest-wait-s", type=float, default=3, help="from a shard to the kill, drawn from 0 on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ray = require_ray()
    start_ray(ray)
    with tempfile.TemporaryDirectory() as work:
        count = 2 * (arguments.kills + 2) * ROWS  # some lives of a worker bring two shards
        write_pictures(Path(work) / "photos", count)
        local = DetectPredictOptions(
            model=BUILTIN,
            images=(Path(work) / "photos",),
            names=NAMES,
            threshold=0.1,
            pictures=False,
            output=Path(work) / "local",
            device="cpu",
        )
        predict_detector(local)
        killer = Killer(arguments.kills, arguments.longest_wait_s, arguments.seed)
        disturbed = replace(
            local, device=None, engine="ray", actors=1, shard_rows=ROWS, output=local.output.with_name("ray")
        )
        start = time.perf_counter()
        killer.during(disturbed)
        body = compared(local.output, disturbed.output, count, killer, time.perf_counter() - start)
    ray.shutdown()
    print(body)
    if arguments.write:
        write_result("ray_kills", f"A Ray run whose worker is killed {len(killer.after)} times", body)


class Killer:
    """Kills the worker after shards, a random time later, until it has done so often enough."""

    def __init__(self, kills: int, longest_s: float, seed: int) -> None:
        self.kills, self.longest_s, self.chance = kills, longest_s, random.Random(seed)
        self.arrived: list[int] = []
        self.killed: set[int] = set()
        self.after: list[int] = []
        """How many shards had arrived at each kill."""

    def during(self, options: DetectPredictOptions) -> None:
        """Run the command meanwhile."""
        write = Parts.write

        def watched(parts: Parts, number: int, shard: Sequence[Item], answers: Sequence[Answer]) -> None:
            write(parts, number, shard, answers)
            self.arrived.append(number)
            if len(self.after) < self.kills:
                threading.Timer(self.chance.uniform(0, self.longest_s), self.kill).start()

        Parts.write = watched  # type: ignore[method-assign]
        try:
            predict_detector(options)
        finally:
            Parts.write = write  # type: ignore[method-assign]

    def kill(self) -> None:
        """SIGKILL for a worker that has a model or loads one."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "MapWorker" in process.name() and process.pid not in self.killed:
                    process.send_signal(signal.SIGKILL)
                    self.killed.add(process.pid)
                    self.after.append(len(self.arrived))
                    print(f"kill {len(self.after)} after {len(self.arrived)} shards", flush=True)
                    return


def compared(local: Path, disturbed: Path, count: int, killer: Killer, took_s: float) -> str:
    """What was lost, repeated or differs."""
    pictures = [row["picture"] for row in read_table(disturbed / "rows").to_pylist()]
    files = sorted(path.name for path in local.glob("[!.]*") if path.is_file())
    equal = [name for name in files if (local / name).read_bytes() == (disturbed / name).read_bytes()]
    rows = [
        ("kills", len(killer.after)),
        ("pictures", count),
        ("rows, of different pictures", f"{len(pictures)}, {len(set(pictures))}"),
        ("shards written, of different numbers", f"{len(killer.arrived)}, {len(set(killer.arrived))}"),
        ("files of the local engine that are the same, byte for byte", f"{len(equal)} of {len(files)}"),
        ("time of the run, s", f"{took_s:.0f}"),
    ]
    return (
        table(("", ""), rows)
        + f"\n\n`detect predict --engine ray`, one worker at a time, shards of {ROWS} pictures, the "
        f"built-in detector; the files: {', '.join(files)}. Shards that had arrived at each kill: "
        f"{', '.join(map(str, killer.after))}."
    )


if __name__ == "__main__":
    main()
