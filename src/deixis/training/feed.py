"""How the samples of a data set become the batches of optimiser steps, for both tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from accelerate import Accelerator
from jaxtyping import Int

from deixis.data.batching.epochs import EpochDataset, epoch_batches
from deixis.data.batching.epochs import steps_per_epoch as batches_per_epoch
from deixis.data.batching.loading import UnreadableImages, load_batches
from deixis.data.batching.shard_order import Ratios
from deixis.training.processes import grouped

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True)
class Feed(Generic[BatchT]):
    """How samples become the batches of steps.

    Attributes:
        collate: a batch of the items of `dataset`.
        batch_size: samples of one process in one batch.
        accumulation: batches of one optimiser step.
        workers: processes that load; 0 loads in this one.
        aspect_ratios: width over height of each sample of the data set, to batch similar shapes together; None for
            random batches.
        shard_sizes: samples of each shard, where the data set lies in shards; see `epoch_batches`.
        unreadable: counts damaged pictures and leaves out a few; None raises at the first.
    """

    dataset: EpochDataset
    collate: Callable[[Sequence[Any]], BatchT]
    batch_size: int
    accumulation: int = 1
    seed: int = 0
    workers: int = 0
    aspect_ratios: Ratios | None = None
    shard_sizes: Int[np.ndarray, " shards"] | None = None
    unreadable: UnreadableImages | None = None

    def steps_per_epoch(self, processes: int) -> int:
        """Optimiser steps of one epoch."""
        return -(-batches_per_epoch(len(self.dataset), self.batch_size, processes) // self.accumulation)

    def groups(self, epoch: int, start: int, accelerator: Accelerator) -> Iterator[list[BatchT]]:
        """The batches of each step of one process, from step `start` of the epoch on, on its device."""
        batches = epoch_batches(
            len(self.dataset),
            self.batch_size,
            epoch,
            self.seed,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            accumulation=self.accumulation,
            aspect_ratios=self._ratios(epoch),
            shard_sizes=self.shard_sizes,
        )[start * self.accumulation :]  # a resumed epoch starts after the batches of its finished steps
        if not batches:
            return
        pin = accelerator.device.type == "cuda"  # from pinned memory `Batch.to` copies without waiting
        loader = load_batches(self.dataset, batches, self.collate, self.workers, pin, self.unreadable)
        yield from grouped((batch.to(accelerator.device) for batch in loader), self.accumulation)

    def _ratios(self, epoch: int) -> Ratios | None:
        """By the indices of an epoch; those of shards are the positions."""
        if self.aspect_ratios is None or self.shard_sizes is not None:
            return self.aspect_ratios
        return self.aspect_ratios[self.dataset.rows(epoch)]
