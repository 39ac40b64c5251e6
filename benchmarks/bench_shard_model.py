"""Memory of each process that trains 300 million random parameters in two: whole in each (DDP), and in shards (FSDP2).

python benchmarks/bench_shard_model.py --write
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from harness import table, write_result
from torch import nn

from deixis.training.sharding import ShardedModel

LAYERS, WIDTH = 24, 3_584
STEPS = 2


def main() -> None:
    """Train a few steps each way under torchrun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the layers")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--child", choices=("whole", "shards"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child, arguments.width, arguments.output)
        return
    rows = []
    for way in ("whole", "shards"):
        with tempfile.TemporaryDirectory() as folder:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.processes}"]
            child = ["--child", way, "--width", str(arguments.width), "--output", f"{folder}/found.json"]
            # else glibc keeps what was freed, up to 32 MB each, and the resident set tells little
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
            command = [sys.executable, *launch, __file__, *child]
            subprocess.run(command, check=True, capture_output=True, env=environment)
            found = json.loads(Path(folder, "found.json").read_text())
        rows.append([way, *(f"{value:,.0f}" for value in found.values())])
        print(*rows[-1], sep="  ", flush=True)
    heads = ["weights", "parameters, M", "before, MB", "peak while training, MB", "peak above before, MB"]
    body = table([*heads, "of it weights, gradients, moments if whole, MB"], rows)
    body += (
        f"\n\n{arguments.processes} processes (gloo, CPU), {LAYERS} linear layers, AdamW, "
        f"{STEPS} steps; resident memory of the process of rank 0 without the model, and at its highest from the "
        "second step on."
    )
    print(body)
    if arguments.write:
        write_result("shard_model", "Training memory of a process: whole model and shards", body)


def measure(way: str, width: int, output: Path) -> None:
    """Train in this process, one of several; the first writes its memory."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    before = resident_mb()
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(LAYERS)))
    count = sum(weight.numel() for weight in model.parameters())
    trained: nn.Module = model
    if way == "whole":
        trained = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        ShardedModel(model, list(model), torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    inputs = torch.randn(4, width)
    highest, done = [0.0], threading.Event()
    for step in range(STEPS):
        if step == 1:
            dist.barrier()
            threading.Thread(target=watch, args=(highest, done), daemon=True).start()
        trained(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=way == "shards")
    if dist.get_rank() == 0:
        states = 4 * 4 * count / 2**20
        found = [count / 1e6, before, highest[0], highest[0] - before, states]
        output.write_text(json.dumps(dict(enumerate(found))))
    done.set()
    dist.barrier()
    dist.destroy_process_group()


def watch(highest: list[float], done: threading.Event) -> None:
    """Keep the largest resident set from now on."""
    while not done.is_set():
        highest[0] = max(highest[0], resident_mb())
        time.sleep(0.005)


def resident_mb() -> float:
    """The resident set of this process now, in MiB; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
