"""One or several processes, on any device: what the training loop needs from accelerate."""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from deixis.errors import OptionError

T = TypeVar("T")


def make_accelerator(precision: Literal["fp32", "bf16"] = "fp32", cpu: bool = False) -> Accelerator:
    """The accelerator of this run; `torchrun` sets the number of processes.

    accelerate keeps one state per Python process and does not allow a second precision, so its state is reset first:
    runs can follow one another in a process.

    Raises:
        OptionError: several processes were started that accelerate does not connect.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    # accelerate connects CPU processes only if the CPU is requested; otherwise each would train alone, into one folder.
    cpu = cpu or not torch.accelerator.is_available()
    _connect_restarted("gloo" if cpu else "nccl")
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=cpu)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise OptionError(
            f"{started} processes were started, and on {accelerator.device} each would train alone; start one, or use "
            "--gpus 0 to train on CPUs"
        )
    return accelerator


def _connect_restarted(backend: str) -> None:
    """Connect processes that torchrun has started again (`--max-restarts`) on one machine.

    Its agent keeps the addresses of the processes before, under the same keys, and these would be looked for. On
    several machines restarts are counted apart, so they give no common prefix; docs/shards.md has the setting for them.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    agent_keeps = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1"
    if not (restarts and agent_keeps) or dist.is_initialized():
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
    prefixed = dist.PrefixStore(f"restart_{restarts}", store)  # type: ignore[attr-defined]
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=prefixed, rank=rank, world_size=count)


def is_first_process() -> bool:
    """Whether this process prints and writes for all; known before an accelerator exists."""
    return int(os.environ.get("RANK", "0")) == 0


def grouped(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches grouped by optimiser step: `size` each, fewer in the last group."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group


def mean_figures(accelerator: Accelerator, figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as Python numbers, averaged over processes. One synchronisation for all of them.

    A NaN or inf in one process makes the mean NaN or inf in all of them.
    """
    stacked = torch.stack([figure.detach().float().reshape(()) for figure in figures.values()])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, reduction="mean")
    return dict(zip(figures, stacked.tolist(), strict=True))


def of_each_process(accelerator: Accelerator, value: float) -> list[float]:
    """A number of this process such that the means over processes, of `mean_figures`, are the numbers of each."""
    count = accelerator.num_processes
    return [value * count if index == accelerator.process_index else 0.0 for index in range(count)]


def gather_lists(accelerator: Accelerator, items: list[T]) -> list[T]:
    """The items of all processes, in process order."""
    return list(gather_object(items)) if accelerator.num_processes > 1 else items


def gather_in_order(accelerator: Accelerator, numbered: list[tuple[int, T]]) -> list[T]:
    """The items of all processes, in the order of their numbers."""
    return [item for _, item in sorted(gather_lists(accelerator, numbered), key=lambda found: found[0])]


def in_any_process(words: Collection[str]) -> set[str]:
    """The words of all processes."""
    return set().union(*gather_object([set(words)]))


def in_every_process(words: Collection[str]) -> set[str]:
    """The words that all processes have."""
    return set.intersection(*gather_object([set(words)]))


def broadcast_from_first(accelerator: Accelerator, value: T) -> T:
    """The first process's value, in every process."""
    if accelerator.num_processes == 1:
        return value
    values: list[T] = broadcast_object_list([value])
    return values[0]


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process in MiB: on a GPU that of tensors, otherwise the resident set."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux


def peak_memory_text(device: torch.device) -> str:
    """The most memory that this process has held so far, for people."""
    kind = "GPU memory of tensors" if device.type == "cuda" else "resident memory of the process"
    return f"{peak_memory_mb(device):,.0f} MiB ({kind})"


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seed the global generators for one step, so that its dropout depends on (seed, step, process) alone.

    deixis draws from torch's generator; Python's and NumPy's are seeded for libraries that a model may use.

    Args:
        seed: 0 or more, of any size.
    """
    mixed = (seed * 1_000_003 + step) * 4_099 + process_index  # no two alike below 1,000,003 steps and 4,099 processes
    torch.manual_seed(mixed % 2**64)  # torch takes 64 bits
    random.seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002
