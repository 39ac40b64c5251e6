"""Our deformable attention beside transformers' own module, in one process, on the same tensors and threads.

    python benchmarks/bench_deformable_attention.py [--rounds 7] [--threads 2] [--device cpu]

Checks that outputs and gradients agree before timing; `--write` records the table in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

sys.path.insert(0, str(Path(__file__).parent))
from harness import ratios, table, time_interleaved, write_result

from deixis.ops.deformable_attention import multi_scale_deformable_attention

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Case:
    name: str
    batch: int
    shapes_hw: Shapes
    heads: int
    channels: int
    queries: int | None  # None: one a key, at the key's own place, as in the encoder
    points: int = 4


CASES = (
    Case("encoder, 480x640, Swin-T", 1, ((60, 80), (30, 40), (15, 20), (8, 10)), 8, 32, None),
    Case("decoder, 480x640, 900 queries", 1, ((60, 80), (30, 40), (15, 20), (8, 10)), 8, 32, 900),
    Case("encoder, batch 16 of 128x128, small", 16, ((16, 16), (8, 8), (4, 4)), 4, 24, None),
    Case("decoder, batch 16 of 128x128, 50 queries", 16, ((16, 16), (8, 8), (4, 4)), 4, 24, 50),
)


def inputs(case: Case, device: str) -> list[Tensor]:
    """Random features and weights; locations normally distributed, two cells wide, around each query's place."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([[width, height] for height, width in case.shapes_hw], dtype=torch.float32)
    places = torch.cat([cell_centres(height, width) for height, width in case.shapes_hw])
    if case.queries is not None:
        places = torch.rand(case.queries, 2, generator=generator)
    shape = (case.batch, len(places), case.heads, len(case.shapes_hw), case.points)
    offsets = torch.randn(*shape, 2, generator=generator) * 2 / sides[:, None]
    keys = sum(height * width for height, width in case.shapes_hw)
    value = torch.randn(case.batch, keys, case.heads, case.channels, generator=generator)
    weights = torch.randn(shape, generator=generator).flatten(3).softmax(-1).view(shape)
    tensors = (value, places[:, None, None, None] + offsets, weights)
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def cell_centres(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((x, y), -1).view(-1, 2)


def worst_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest difference over the largest value, over output and gradients."""
    return max(
        (one - other).abs().max().item() / other.abs().max().item() for one, other in zip(ours, theirs, strict=True)
    )


def measure(case: Case, device: str, rounds: int) -> list[list[str]]:
    tensors = inputs(case, device)
    module = MultiScaleDeformableAttention()
    functions: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: multi_scale_deformable_attention(
            tensors[0], case.shapes_hw, tensors[1], attention_weights=tensors[2]
        ),
        "transformers": lambda: module(tensors[0], None, case.shapes_hw, None, tensors[1], tensors[2], 64),
    }
    outputs = {name: function() for name, function in functions.items()}
    direction = torch.randn_like(outputs["ours"])
    gradients = {
        name: [out, *torch.autograd.grad(out, tensors, direction, retain_graph=True)] for name, out in outputs.items()
    }
    difference = worst_difference(gradients["ours"], gradients["transformers"])
    if not difference < 1e-4:
        raise SystemExit(f"{case.name}: ours and transformers' differ by {difference:.1e}")
    runs = {f"{name} forward": function for name, function in functions.items()}
    for name, out in outputs.items():
        runs[f"{name} backward"] = lambda out=out: torch.autograd.grad(out, tensors, direction, retain_graph=True)
    timings = time_interleaved(runs, rounds)
    return [
        [case.name, phase, timings[f"transformers {phase}"], timings[f"ours {phase}"],
         ratios(timings[f"transformers {phase}"], timings[f"ours {phase}"]), f"{difference:.0e}"]
        for phase in ("forward", "backward")
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of every run (default 7)")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch and of our kernels")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [row for case in CASES for row in measure(case, options.device, options.rounds)]
    header = ("case", "pass", "transformers, ms", "ours, ms", "times faster", "difference")
    body = table(header, rows) + (
        f"\n\ntransformers {transformers.__version__}, 32-bit. Median (range) of {options.rounds} interleaved rounds; "
        "the difference is the largest over output and gradients, relative to the largest value."
    )
    print(body)
    if options.write:
        print(write_result("deformable_attention", "Multi-scale deformable attention", body, options.device))


if __name__ == "__main__":
    main()
