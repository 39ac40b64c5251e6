"""What the log says of a step: losses, learning rates, speed, memory, and how long it waited for data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deixis.training.processes import peak_memory_mb
from deixis.training.run import Run


def step_record(
    run: Run, figures: Mapping[str, float], rates: Mapping[str, float], *, group: Sequence[Any], started: float
) -> dict[str, Any]:
    """The log record of a step: every loss by name, learning rates, speed and memory."""
    images = sum(len(batch) for batch in group) * run.accelerator.num_processes
    return {
        "epoch": run.progress.epoch,
        **figures,
        "lr": rates,
        "skipped": run.progress.skipped,
        "images_per_second": round(images / max(time.perf_counter() - started, 1e-9), 3),
        "peak_memory_mb": round(peak_memory_mb(run.accelerator.device)),
    }


def waiting(waits: Sequence[float], seconds: float) -> dict[str, Any]:
    """The share of a step that processes waited for their data, for the log; of several also which one waited most.

    Args:
        waits: seconds that each process waited.
        seconds: that the step took.

    >>> waiting([0.1, 0.3], 1.0)
    {'data_wait_share': 0.2, 'data_wait_most': {'process': 1, 'share': 0.3}}
    """
    shares = [round(min(max(wait / max(seconds, 1e-9), 0.0), 1.0), 4) for wait in waits]
    found: dict[str, Any] = {"data_wait_share": round(sum(shares) / len(shares), 4)}
    if len(shares) > 1:
        slowest = max(range(len(shares)), key=shares.__getitem__)
        found["data_wait_most"] = {"process": slowest, "share": shares[slowest]}
    return found
