"""One process or many, one device or another: what accelerate does for a run, in the words of the loop."""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Literal, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from deixis.errors import OptionError

T = TypeVar("T")


def make_accelerator(precision: Literal["fp32", "bf16"] = "fp32", cpu: bool = False) -> Accelerator:
    """The accelerator of this run; `torchrun` has set how many processes there are.

    accelerate keeps one state a Python process and refuses a second precision; a run that follows another in the
    same process starts from a clean one.

    Raises:
        OptionError: several processes were started, and accelerate does not join them.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    # Processes on CPUs are joined only when the CPU is asked for; else each would train alone, into the same folder.
    cpu = cpu or not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=cpu)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise OptionError(
            f"{started} processes were started, and on {accelerator.device} each would train alone; start one, or give "
            "--gpus 0 to train on CPUs"
        )
    return accelerator


def is_first_process() -> bool:
    """Whether this process speaks and writes for all; known before an accelerator is made."""
    return int(os.environ.get("RANK", "0")) == 0


def grouped(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches by optimiser step: `size` of them, and what is left at the end."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group


def mean_figures(accelerator: Accelerator, figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, averaged over processes: the only wait for the device in a step.

    A NaN or inf in one process makes the mean NaN or inf in all of them.
    """
    stacked = torch.stack([figure.detach().float().reshape(()) for figure in figures.values()])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, reduction="mean")
    return dict(zip(figures, stacked.tolist(), strict=True))


def gather_lists(accelerator: Accelerator, items: list[T]) -> list[T]:
    """The items of all processes, in process order."""
    return list(gather_object(items)) if accelerator.num_processes > 1 else items


def from_first(accelerator: Accelerator, value: T) -> T:
    """The first process's value, in all of them."""
    if accelerator.num_processes == 1:
        return value
    values: list[T] = broadcast_object_list([value])
    return values[0]


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process has held: on a GPU, that of tensors; else the resident set. In MiB."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def peak_memory_text(device: torch.device) -> str:
    """The most memory that this process has held so far, for people."""
    kind = "GPU memory of tensors" if device.type == "cuda" else "resident memory of the process"
    return f"{peak_memory_mb(device):,.0f} MiB ({kind})"


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seed the global generators for one step: its dropout depends on (seed, step, process) and on no history.

    Ours draw from torch's alone; Python's and NumPy's are for what a model's libraries may draw.
    """
    mixed = (seed * 1_000_003 + step) * 4_099 + process_index
    torch.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002
