"""What a run takes: memory at its peak, and the time that gradient checkpointing costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from deixis.training.loop import Task
from deixis.training.processes import peak_memory_mb


class Recomputation(NamedTuple):
    """Seconds of one batch, forward and backward, and of it what was computed a second time."""

    whole_s: float
    again_s: float

    def __str__(self) -> str:
        """For people.

        >>> str(Recomputation(1.25, 0.25))
        '0.250 s of 1.250 s a batch are computed again (25 % longer)'
        """
        longer = 100 * self.again_s / max(self.whole_s - self.again_s, 1e-9)
        return f"{self.again_s:.3f} s of {self.whole_s:.3f} s a batch are computed again ({longer:.0f} % longer)"


def peak_memory_text(device: torch.device) -> str:
    """The most memory that this process has held so far, for people."""
    kind = "GPU memory of tensors" if device.type == "cuda" else "resident memory of the process"
    return f"{peak_memory_mb(device):,.0f} MiB ({kind})"


def measure_recomputation(task: Task, accelerator: Accelerator) -> Recomputation | None:
    """Time what the backward pass of the epoch's first batch computes again; None where there is no batch.

    Without checkpointing the batch might not fit, so the two are not compared: modules that run while the backward pass
    does are what checkpointing adds, and their time is taken. The second of two passes counts, for the first one warms
    up. Gradients are dropped; no weight changes.
    """
    group = next(iter(task.groups(0, 0)), None)
    if group is None:
        return None
    task.model.train()
    normaliser = task.normaliser(group)
    for _ in range(2):
        started = _now(accelerator.device)
        total, _ = task.losses(group[0], normaliser)
        with _timed_modules(accelerator.device) as spans:
            accelerator.backward(total)
        whole_s = _now(accelerator.device) - started
        task.model.zero_grad(set_to_none=True)
    return Recomputation(whole_s, sum(spans))


@contextmanager
def _timed_modules(device: torch.device) -> Iterator[list[float]]:
    """Seconds of every outermost call of a module inside the block."""
    spans: list[float] = []
    begun: list[float] = []

    def before(module: Any, given: Any) -> None:
        begun.append(0.0 if begun else _now(device))

    def after(module: Any, given: Any, out: Any) -> None:
        start = begun.pop()
        if not begun:
            spans.append(_now(device) - start)

    # A recomputation ends with an exception once all that was wanted is there, hence `always_call`.
    hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
