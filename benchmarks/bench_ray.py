"""`--engine ray` beside the plain loop: pictures per second, start-up apart.

python benchmarks/bench_ray.py --write
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from harness import table, write_result
from PIL import Image

from deixis.data.formats import read_dataset
from deixis.inference.detect.detector import load_detector
from deixis.models.builtin import BUILTIN
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.detect_predict import detecting
from deixis.recipes.engine.parts import Parts
from deixis.recipes.engine.ray_run import ray_answers
from deixis.recipes.engine.sources import list_items

NAMES = ("red circle", "blue star", "green square")
ROWS = 8


def main() -> None:
    """Measure on one thread each, by turns, in one Ray."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest-wait-s", type=float, default=20, help="between two kills, drawn from 0 on")
    arguments = parser.parse_args()
    import ray

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    start = time.perf_counter()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    init_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as work:
        photos = Path(work) / "photos"
        write_pictures(photos, arguments.pictures)
        options = DetectPredictOptions(
            model=BUILTIN, images=(photos,), names=NAMES, threshold=0.1, pictures=False, output=Path(work) / "local"
        )
        body = throughput(options, arguments.rounds, init_s)
    ray.shutdown()
    print(body)
    if arguments.write:
        write_result("ray", f"Ray beside the plain loop, {arguments.pictures} pictures", body)


def write_pictures(folder: Path, count: int) -> None:
    """Generated scenes as JPEG files."""
    folder.mkdir()
    scenes = read_dataset(f"scenes:split=demo_val,count={count},seed=5")
    for index in range(count):
        Image.fromarray(scenes[index].image).save(folder / f"{index:05d}.jpg", quality=95)


def throughput(options: DetectPredictOptions, rounds: int, init_s: float) -> str:
    """Both engines by turns."""
    detector = load_detector(BUILTIN, "cpu")
    items = list_items(options.images)
    plain, on_ray, started = [], [], []
    for number in range(rounds):
        found = detector.stream(options.images, NAMES, 0.1, batch_size=options.batch_size)
        for _ in range(ROWS):
            next(found)
        start = time.perf_counter()
        count = sum(1 for _ in found)
        plain.append(count / (time.perf_counter() - start))
        speed, start_s = ray_speed(options, items, number)
        on_ray.append(speed)
        started.append(start_s)
        print(
            f"plain {plain[-1]:.2f}, Ray {speed:.2f} pictures per second, first shard after {start_s:.1f} s", flush=True
        )
    each = [theirs / ours for theirs, ours in zip(on_ray, plain, strict=True)]
    rows = [
        ("plain loop, 1 process, 1 thread", f"{statistics.median(plain):.2f}", f"{min(plain):.2f} to {max(plain):.2f}"),
        ("Ray, 1 actor, 1 thread", f"{statistics.median(on_ray):.2f}", f"{min(on_ray):.2f} to {max(on_ray):.2f}"),
        ("ratio, Ray / plain loop", f"{statistics.median(each):.2f}", f"{min(each):.2f} to {max(each):.2f}"),
    ]
    return (
        table(("", "pictures per second, median", f"range of {rounds}"), rows)
        + f"\n\nBoth read the same JPEG files, with the built-in detector in batches of {options.batch_size}, without "
        f"drawing. Ray's figure includes parquet files of {ROWS} rows. Start-up is not in it: starting Ray "
        f"took {init_s:.1f} s, from there to the first shard {statistics.median(started):.1f} s (median; a process "
        "that imports torch and loads the model)."
    )


def ray_speed(options: DetectPredictOptions, items: list, number: int) -> tuple[float, float]:
    """(pictures per second from the first shard's arrival to the last's, seconds to the first)."""
    arrived: list[float] = []
    write = Parts.write

    def timed(self, number, shard, answers):  # type: ignore[no-untyped-def]
        write(self, number, shard, answers)
        arrived.append(time.perf_counter())

    Parts.write = timed
    start = time.perf_counter()
    try:
        answers = ray_answers(
            partial(detecting, options, {name: (name,) for name in NAMES}),
            items,
            Engine(engine="ray", actors=1, shard_rows=ROWS),
            output=options.output.with_name(f"ray-{number}"),
            made_by={},
            model=BUILTIN,
            batch_size=options.batch_size,
            together=options.batch_size,
        )
        count = sum(1 for _ in answers)
    finally:
        Parts.write = write
    return (count - ROWS) / (arrived[-1] - arrived[0]), arrived[0] - start


if __name__ == "__main__":
    main()
