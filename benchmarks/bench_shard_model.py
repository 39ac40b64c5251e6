"""Memory of each process that trains 300 million random parameters in two: whole in each (DDP), and in shards (FSDP2).

python benchmarks/bench_shard_model.py --write
python benchmarks/bench_shard_model.py --loading --write    of each process that reads a segmenter to be divided
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

from deixis.models.sa2va import init_sa2va, load_sa2va, save_sa2va
from deixis.models.sa2va.parts import layers_of
from deixis.models.sa2va.small import small_chat_tokenizer, small_sam_config, small_vlm_config
from deixis.recipes.run.outputs import weights_digest
from deixis.training.sharding import ShardedModel

LAYERS, WIDTH = 24, 3_584
STEPS = 2
WAYS = {
    "copied": "read whole into memory, as a move to a device does, then divided",
    "digested": "mapped, all weights digested in every process, then divided",
    "mapped": "mapped and divided, as `refer train --shard-model` does in every process but the first",
}


def main() -> None:
    """Measure training, or loading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the layers")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--loading", action="store_true", help="measure how the model is read, not how it trains")
    parser.add_argument("--child", choices=("whole", "shards", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        if arguments.child in WAYS:
            measure_loading(arguments.child, arguments.model, arguments.output)
        else:
            measure(arguments.child, arguments.width, arguments.output)
    elif arguments.loading:
        loading(arguments)
    else:
        training(arguments)


def launched(arguments: argparse.Namespace, way: str, folder: str, *more: str) -> list[str]:
    """A row of the table: what the first of several processes measured."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.processes}"]
    child = ["--child", way, "--width", str(arguments.width), "--output", f"{folder}/found.json", *more]
    # else glibc keeps what was freed, up to 32 MB each, and the resident set tells little
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    subprocess.run([sys.executable, *launch, __file__, *child], check=True, capture_output=True, env=environment)
    found = json.loads(Path(folder, "found.json").read_text())
    row = [WAYS.get(way, way), *(f"{value:,.0f}" for value in found.values())]
    print(*row, sep="  ", flush=True)
    return row


def loading(arguments: argparse.Namespace) -> None:
    """Read a segmenter each way under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = small_chat_tokenizer(("red",))
        width = arguments.width // 64 * 32  # heads of 32 channels
        vlm = small_vlm_config(tokenizer, 64, 8, 32, 2, text_width=width, text_layers=7)
        sam = small_sam_config(64, channels=32, widths=(8, 16, 24, 32))
        save_sa2va(init_sa2va(vlm, sam, tokenizer), f"{folder}/model")
        rows = [launched(arguments, way, folder, "--model", f"{folder}/model") for way in WAYS]
    heads = ["how", "parameters, M", "weights, MB", "peak above before, MB", "of it the process's own, MB"]
    body = table([*heads, "afterwards above before, MB"], rows)
    body += (
        f"\n\n{arguments.processes} processes (CPU), a segmenter in float32; resident memory of the process of rank 0. "
        "What is not the process's own are pages of the mapped file, which all processes share and the system may drop."
    )
    print(body)
    if arguments.write:
        write_result("shard_model_loading", "Memory of a process while a model is read to be divided", body)


def training(arguments: argparse.Namespace) -> None:
    """Train a few steps each way under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [launched(arguments, way, folder) for way in ("whole", "shards")]
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
    before, _ = resident_mb()
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
    highest, done = [0.0, 0.0], threading.Event()
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


def measure_loading(way: str, model: Path, output: Path) -> None:
    """Read and divide a segmenter in this process, one of several; the first writes its memory."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    before = resident_mb()
    highest, done = [0.0, 0.0], threading.Event()
    threading.Thread(target=watch, args=(highest, done), daemon=True).start()
    network = load_sa2va(model).model
    count = sum(weight.numel() for weight in network.parameters())
    if way == "copied":
        for weight in network.parameters():
            weight.data = weight.data.clone()
    if way == "digested":
        weights_digest(network)
    ShardedModel(network, layers_of(network), torch.device("cpu"))
    time.sleep(0.1)
    done.set()
    if dist.get_rank() == 0:
        peaks = [most - first for most, first in zip(highest, before, strict=True)]
        output.write_text(
            json.dumps(dict(enumerate([count / 1e6, 4 * count / 2**20, *peaks, resident_mb()[0] - before[0]])))
        )
    dist.barrier()
    dist.destroy_process_group()


def watch(highest: list[float], done: threading.Event) -> None:
    """Keep the largest resident set, and the largest of it that is the process's own, from now on."""
    while not done.is_set():
        highest[:] = map(max, highest, resident_mb())
        time.sleep(0.005)


def resident_mb() -> tuple[float, float]:
    """The resident set of this process now, and what of it belongs to no file, in MiB; Linux only."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return resident * 4096 / 2**20, (resident - shared) * 4096 / 2**20


if __name__ == "__main__":
    main()
