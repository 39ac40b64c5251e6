"""Losses on validation data: the training criterion on held-out images, without any randomness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator

from deixis.data.batching.epochs import Key
from deixis.training.processes import gather_lists

B = TypeVar("B")
Sums = Mapping[str, tuple[float, int]]
"""For each loss of a batch: its sum over boxes, masks or tokens (its divisor in training), and their number."""


def spread_evenly(images: int, max_count: int) -> list[int]:
    """At most `max_count` evenly spaced positions in a data set of `images` images.

    >>> spread_evenly(100, 3)
    [0, 50, 99]
    """
    chosen: list[int] = np.unique(np.linspace(0, images - 1, min(max_count, images)).round().astype(int)).tolist()
    return chosen


def batches_of(indices: Sequence[int], batch_size: int, accelerator: Accelerator) -> list[list[Key]]:
    """The batches of this process; all processes together have the same batches, whatever their number."""
    keys = [(0, index) for index in indices]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    # every n-th batch of n processes: the batches are the same for any n
    return batches[accelerator.process_index :: accelerator.num_processes]


def mean_losses(batches: Iterable[B], sums_of: Callable[[B], Sums], accelerator: Accelerator) -> dict[str, float]:
    """The mean of each loss over the batches of all processes, equal to the loss of one batch with all of them.

    The model must be in evaluation mode. No random numbers are drawn and no graph is recorded.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    with torch.no_grad(), accelerator.autocast():
        for batch in batches:
            for name, (value, count) in sums_of(batch).items():
                sums[name] += value
                counts[name] += count
    of_processes: Sequence[tuple[dict[str, float], dict[str, int]]]
    of_processes = gather_lists(accelerator, [(dict(sums), dict(counts))])
    # A process without a batch has no names; those of the others count.
    names = dict.fromkeys(name for found, _ in of_processes for name in found)
    return {
        name: sum(found.get(name, 0.0) for found, _ in of_processes)
        / max(sum(found.get(name, 0) for _, found in of_processes), 1)
        for name in names
    }
