"""Where the time of our own forward pass and training step goes, and how far that is from what the machine can do.

    python benchmarks/bench_parts.py --write

Swin-T, backbones frozen, batch 1, 480 x 640, single precision, on the CPU. The floor of a part is the arithmetic of its
matrix products, as PyTorch's counter has it, over the rate that a large product reaches; deformable attention, norms,
activations and copies have none in it. The prompt is remembered, as it is in training with a frozen text encoder.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from bench_detector import forwards, make_models, make_problem, steps
from harness import table, write_result
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parts_of(model: Any) -> dict[str, list[nn.Module]]:
    """The parts that share the time of a forward pass, none inside another."""
    trunk = model.model
    encoder, decoder = trunk.encoder.layers, trunk.decoder.layers
    return {
        "Swin": [trunk.backbone],
        "projections to the levels": [layer for level in trunk.input_proj_vision for layer in level],
        "encoder: fusion": [layer.fusion_layer for layer in encoder],
        "encoder: text": [layer.text_enhancer_layer for layer in encoder],
        "encoder: deformable attention": [layer.deformable_layer.self_attn for layer in encoder],
        "encoder: rest of its layers (feed-forward)": [layer.deformable_layer for layer in encoder],
        "decoder: attention among queries": [layer.self_attn for layer in decoder],
        "decoder: attention to the text": [layer.encoder_attn_text for layer in decoder],
        "decoder: deformable attention": [layer.encoder_attn for layer in decoder],
        "decoder: rest of its layers (feed-forward)": list(decoder),
    }


def counting() -> FlopCounterMode:
    """PyTorch's counter, and what a CPU has that it does not know."""
    operators = torch.ops.aten

    def product(total: Any, left: Any, right: Any, **_: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return 2 * query[0] * query[1] * query[2] * key[2] * (query[3] + value[3])

    def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return 5 * attention(query, key, value) // 2  # the products are made again, and each has two gradients

    mapping = {
        operators.addmm_: product,
        operators._scaled_dot_product_flash_attention_for_cpu: attention,
        operators._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def measured_rate() -> float:
    """Multiplications and additions a second of a large matrix product, the best of five."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / min(seconds_of(lambda: torch.mm(a, b)) for _ in range(5))


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(
    model: Any, given: tuple[torch.Tensor, ...], run: Callable[[], None], rounds: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Median seconds and operations of each part of a forward pass, and median seconds of it all."""
    spent: dict[str, float] = defaultdict(float)
    work: dict[str, float] = defaultdict(float)
    counter = counting()
    handles = []
    for name, modules in parts_of(model).items():
        for module in modules:
            begun: list[tuple[float, int]] = []

            def before(*_: Any, begun: list[tuple[float, int]] = begun) -> None:
                begun.append((time.perf_counter(), counter.get_total_flops()))

            def after(*_: Any, begun: list[tuple[float, int]] = begun, name: str = name) -> None:
                start, operations = begun.pop()
                spent[name] += time.perf_counter() - start
                work[name] += counter.get_total_flops() - operations

            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    with counter:  # which does not work in inference mode
        model(*given)
    operations = dict(work)
    spent.clear()
    each: list[dict[str, float]] = []
    totals = []
    for _ in range(rounds):
        totals.append(seconds_of(run))
        each.append(dict(spent))
        spent.clear()
    for handle in handles:
        handle.remove()
    seconds = {name: statistics.median(one[name] for one in each) for name in operations}
    return without_inner(seconds), without_inner(operations), statistics.median(totals)


def without_inner(found: dict[str, float]) -> dict[str, float]:
    """A layer's rest is the layer less the attentions inside it."""
    rest = {
        "encoder: rest of its layers (feed-forward)": ["encoder: deformable attention"],
        "decoder: rest of its layers (feed-forward)": [
            "decoder: attention among queries",
            "decoder: attention to the text",
            "decoder: deformable attention",
        ],
    }
    return {name: value - sum(found[inner] for inner in rest.get(name, [])) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="the size of the built-in detector in place of Swin-T")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, theirs = make_models("frozen", "cpu", small=arguments.small)
    problem = make_problem(1, tuple(arguments.size), 5, "cpu")
    given = (problem.pixel_values, problem.masks[0], problem.input_ids, problem.masks[1])
    rate = measured_rate()
    forward = forwards(ours, theirs, problem, contextlib.nullcontext)["deixis"]
    forward()
    seconds, operations, total = measure(ours, given, forward, arguments.rounds)
    with counting() as counter:
        ours(*given)
    whole = counter.get_total_flops()
    named = [(name, seconds[name], operations[name]) for name in seconds]
    others = ("heads, query selection, positions", total - sum(seconds.values()), whole - sum(operations.values()))
    rows = [row(*entry, rate) for entry in [*named, others, ("forward pass", total, whole)]]
    step = steps(ours, theirs, problem, contextlib.nullcontext)["deixis"]
    step()
    with counting() as counter:
        step()
    took = statistics.median(seconds_of(step) for _ in range(arguments.rounds))
    rows.append(row("training step, AdamW included", took, counter.get_total_flops(), rate))
    body = f"A product of 2048 x 2048 matrices reaches {rate / 1e9:.0f} GFLOP/s here.\n\n"
    body += table(["part", "ms", "GFLOP", "floor, ms", "times the floor"], rows)
    print(body)
    if arguments.write:
        write_result(
            f"detector_parts{'_small' * arguments.small}",
            f"Where the detector's time goes: {'small' if arguments.small else 'Swin-T'}, frozen backbones, "
            f"{'x'.join(map(str, arguments.size))}, fp32",
            body,
        )


def row(name: str, seconds: float, operations: float, rate: float) -> list[str]:
    floor = operations / rate
    ratio = f"{seconds / floor:.1f}" if floor > 0.001 else "-"
    return [name, f"{seconds * 1e3:.0f}", f"{operations / 1e9:.1f}", f"{floor * 1e3:.0f}", ratio]


if __name__ == "__main__":
    main()
