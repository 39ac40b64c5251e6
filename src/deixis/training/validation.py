"""Losses on validation data: the criterion of training on images that do not train, without anything random."""

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
"""For each loss of a batch: its sum over what it is divided by in training, and how many of those there were."""


def spread_evenly(images: int, most: int) -> list[int]:
    """At most `most` positions among the images of a data set.

    >>> spread_evenly(100, 3)
    [0, 50, 99]
    """
    chosen: list[int] = np.unique(np.linspace(0, images - 1, min(most, images)).round().astype(int)).tolist()
    return chosen


def batches_of(indices: Sequence[int], batch_size: int, accelerator: Accelerator) -> list[list[Key]]:
    """The batches of this process; together they are the same for any number of processes."""
    keys = [(0, index) for index in indices]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return batches[accelerator.process_index :: accelerator.num_processes]


def mean_losses(batches: Iterable[B], sums_of: Callable[[B], Sums], accelerator: Accelerator) -> dict[str, float]:
    """The mean of each loss over the batches of all processes: as one batch of them all would give it.

    The model has to be in evaluation mode. Nothing is drawn and no gradient is kept.
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
    names = dict.fromkeys(name for found, _ in of_processes for name in found)
    return {
        name: sum(found.get(name, 0.0) for found, _ in of_processes)
        / max(sum(found.get(name, 0) for _, found in of_processes), 1)
        for name in names
    }
