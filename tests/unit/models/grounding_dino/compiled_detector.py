"""Compiles a small detector's layers and prints how it differs from a plain one, as JSON.

A program of its own: under the tests' shape checks a compiler would compile those too.
"""

from __future__ import annotations

import json

from small_detectors import IDS, images, prompts, small_detector, total
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

SIZES = [(64, 96), (96, 64), (128, 96)]


def main() -> None:
    plain, compiled = small_detector(), small_detector()
    counter = CompileCounterWithBackend("eager")  # the graphs that inductor would be given, without its C++
    for layer in (*compiled.model.encoder.layers, *compiled.model.decoder.layers):
        layer.compile(dynamic=True, backend=counter)
    worst = 0.0
    for seed, size in enumerate(SIZES):
        given = {**images(size, (64, 64), seed=seed), **prompts(*IDS)}
        for model in (plain, compiled):
            model.zero_grad()
            total(model(**given)).backward()
        for mine, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
            if theirs.grad is not None and mine.grad is not None:
                scale = float(theirs.grad.abs().max()) + 1e-3
                worst = max(worst, float((mine.grad - theirs.grad).abs().max()) / scale)
    found = {
        "same names": list(compiled.state_dict()) == list(plain.state_dict()),
        "worst gradient": worst,
        "graph breaks": sum(counters["graph_break"].values()),
        "graphs": counter.frame_count,
        "calls": len(SIZES) * (len(compiled.model.encoder.layers) + len(compiled.model.decoder.layers)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
