"""The constants of `deixis plan` that nothing else measures, and its formulas beside steps that fit this machine.

python benchmarks/bench_plan.py --write
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from harness import table, write_result
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from deixis.recipes.engine.estimate import ITEM_BYTES, LAYER_BYTES_PER_VALUE, OBJECT_BYTES, ROW_BYTES
from deixis.recipes.engine.items import Item
from deixis.recipes.engine.parts import Answer, Parts

TOKENS, WORDS = 512, 8_192
SHAPES = ((8, 512), (12, 1024), (16, 1280))
EXACT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""For malloc: what is freed goes back at once, and the peak is that of what is held."""


def main() -> None:
    """Each step in a process of its own, for its peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many sizes of transformer, smallest first")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        step(2, 64)  # loads what the first step of a process loads
        print(json.dumps(step(*arguments.child)))
        return
    rows: list[tuple[Any, ...]] = [("bytes of a picture in the list of a Ray run", f"{item_bytes():.0f}", ITEM_BYTES)]
    per_row, per_object = row_bytes()
    rows += [("bytes of a picture in rows/", f"{per_row:.0f}", ROW_BYTES)]
    rows += [("bytes of a box in rows/", f"{per_object:.0f}", OBJECT_BYTES)]
    body = table(("", "measured", "in the plan"), rows)
    steps = []
    for layers, width in SHAPES[: arguments.shapes]:
        child = [sys.executable, __file__, "--child", str(layers), str(width)]
        answer = subprocess.run(child, check=True, capture_output=True, env={**os.environ, **EXACT_MEMORY})
        found = json.loads(answer.stdout.splitlines()[-1])
        memory, work = found["peak"] / found["planned_peak"], found["flop"] / found["planned_flop"]
        steps.append(
            (
                f"{found['parameters'] / 1e6:.0f} M",
                f"{found['peak'] / 1e9:.2f}",
                f"{found['planned_peak'] / 1e9:.2f}",
                f"{memory:.2f}",
                f"{found['flop'] / 1e12:.3f}",
                f"{found['planned_flop'] / 1e12:.3f}",
                f"{work:.2f}",
            )
        )
        print(*steps[-1], flush=True)
    if steps:
        heads = ("parameters", "peak, GB", "planned", "ratio", "TFLOP", "planned", "ratio")
        body += (
            "\n\n"
            + table(heads, steps)
            + (
                f"\n\nTraining steps of transformers with random weights: {TOKENS} tokens, {WORDS:,} words, fp32, "
                "AdamW, activation checkpointing, one process. Peaks are resident memory above that before the model "
                "is made, after a step of a tiny one has loaded the libraries; freed memory goes back at once. "
                "The plan's 16 bits an activation are doubled; nothing is sharded here, and its headroom is left out."
            )
        )
    print(body)
    if arguments.write:
        write_result("plan", "The constants and formulas of deixis plan", body)


def item_bytes(count: int = 200_000) -> float:
    """Memory of a listed picture, its path of 40 characters included."""
    process = psutil.Process()
    before = process.memory_info().rss
    paths = (f"/data/photos/{number // 1000:06d}/{number:09d}.jpg" for number in range(count))
    items = {
        path: Item(path, 0, path + "", (300_000 + len(path), 1_700_000_000_000_000_000 + len(path))) for path in paths
    }
    return (process.memory_info().rss - before) / len(items)


def row_bytes(count: int = 4096) -> tuple[float, float]:
    """Bytes of a row without objects, and of each box in it, as parquet."""
    generator, sizes = np.random.default_rng(0), []
    for objects in (0, 8):
        with tempfile.TemporaryDirectory() as folder:
            shard = [Item(f"/data/photos/{n:09d}.jpg", 0, f"/data/photos/{n:09d}.jpg") for n in range(count)]
            answers = [
                Answer(
                    {
                        "size_hw": [480, 640],
                        "boxes_xyxy_px": generator.uniform(0, 640, (objects, 4)).astype(np.float32).tolist(),
                        "scores": generator.uniform(0, 1, objects).astype(np.float32).tolist(),
                        "class_ids": generator.integers(0, 80, objects).tolist(),
                    },
                    version="0.1.0",
                )
                for _ in shard
            ]
            parts = Parts(Path(folder), {}, "IDEA-Research/grounding-dino-tiny")
            parts.write(0, shard, answers)
            sizes.append(parts.path(0).stat().st_size / count)
    return sizes[0], (sizes[1] - sizes[0]) / 8


def step(layers: int, width: int) -> dict[str, float]:
    """Two training steps: operations of the second, and the peak of memory."""
    torch.manual_seed(0)
    before = psutil.Process().memory_info().rss
    config = Qwen2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=width * 8 // 3,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        vocab_size=WORDS,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimiser = torch.optim.AdamW(model.parameters())
    ids = torch.randint(0, WORDS, (1, TOKENS))
    for _ in range(2):
        optimiser.zero_grad(set_to_none=False)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
    total = sum(parameter.numel() for parameter in model.parameters())
    head = WORDS * width
    body = total - 2 * head  # without the embedding, which costs no operations, and the head, which runs once
    return {
        "parameters": total,
        "flop": counter.get_total_flops(),
        "planned_flop": (8 * body + 6 * head) * TOKENS,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "planned_peak": 16 * total
        + 4 * layers * TOKENS * width
        + 2 * LAYER_BYTES_PER_VALUE * TOKENS * width
        + 3 * 4 * TOKENS * WORDS,
    }


if __name__ == "__main__":
    main()
