"""Which samples an epoch shows, in which batches: a function of (seed, epoch, sample index) and of nothing else.

Every sample draws from a generator seeded by those three numbers, and the order of an epoch is drawn from
(seed, epoch). So results do not depend on how many workers load, and a run resumes in the middle of an epoch by
skipping the batches that are done. No two samples of a run share a generator; the order has that of sample 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Int

from deixis.data.batching.shard_order import BUCKET_BATCHES, Begun, Order, Ratios, ShapeOrder, ShardOrder
from deixis.data.sets.mixing import Joined
from deixis.errors import OptionError

Key = tuple[int, int]  # (epoch, index)
SEEDS = 2**62  # number of seeds that a step may draw for a sample


class EpochDataset(torch.utils.data.Dataset):
    """What an epoch shows of a data set, by (epoch, index); subclasses make training items of the samples.

    Args:
        dataset: a mixture (`Joined`) shows other samples in each epoch, any other data set the same.
        seed: not negative.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        if seed < 0:
            raise OptionError(f"seed must be 0 or more, got {seed}")
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def rows(self, epoch: int) -> Int[np.ndarray, " places"]:
        """For each index of an epoch, the position of its sample in the data set."""
        return self.dataset.rows(epoch) if isinstance(self.dataset, Joined) else np.arange(len(self.dataset))

    def drawn(self, key: Key) -> tuple[Any, np.random.Generator]:
        """The sample at an index of an epoch, and the generator of all that is random about it."""
        epoch, index = key
        sample = self.dataset.at(epoch, index) if isinstance(self.dataset, Joined) else self.dataset[index]
        return sample, sample_generator(self.seed, epoch, index)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch."""
    # NumPy pads seeds with zeros, so some streams coincide: (seed, epoch), of the order, is (seed, epoch, 0), of sample
    # 0; a first window of shards, (seed, epoch, 1, 0), is sample 1; the first pass through a mix's first data set,
    # (seed, 0, 0, 0), is the order of epoch 0. It does no harm: each of them is as random as with a stream of its own,
    # samples are independent of one another, and how often one is shown depends on none of them. Recorded results
    # depend on the streams, so they stay.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index])))


def epoch_batches(
    count: int,
    batch_size: int,
    epoch: int,
    seed: int,
    shuffle: bool = True,
    num_processes: int = 1,
    process_index: int = 0,
    drop_last: bool = False,
    aspect_ratios: Sequence[float] | Ratios | None = None,
    accumulation: int = 1,
    shard_sizes: Int[np.ndarray, " shards"] | None = None,
) -> EpochBatches:
    """The batches of one process in one epoch, as keys of an `EpochDataset`.

    An optimiser step is `accumulation` batches of every process. Its samples are those of a single process with a batch
    of `batch_size * num_processes * accumulation`: only how they are shared out differs. All processes get equally many
    batches. The last step has no more batches than it needs, and its samples are shared out evenly; where a batch of it
    would leave a process without a sample, some of the epoch's first samples are repeated.

    Args:
        count: samples in the data set.
        batch_size: samples of one process in one batch.
        shuffle: a new order each epoch, or the data set's own.
        drop_last: leave out a last step that is not full.
        aspect_ratios: width over height of each sample; steps are then made of images of similar shape (less
            padding), their order still shuffled. Ignored without `shuffle`.
        accumulation: batches of one process in one step.
        shard_sizes: samples of each shard, where the data set lies in shards: their order takes no memory per sample.
    """
    if count < 1 or min(batch_size, accumulation) < 1 or not 0 <= process_index < num_processes:
        raise OptionError(
            "loading needs samples, a batch size and an accumulation of 1 or more and a process among "
            f"{num_processes}; got {count} samples, batch size {batch_size}, accumulation {accumulation}, process "
            f"{process_index}"
        )
    of_batches = batch_size * num_processes  # samples of one batch of each process
    step = of_batches * accumulation
    if shuffle and shard_sizes is not None:
        order: Order = ShardOrder(shard_sizes, seed, epoch)
        if aspect_ratios is not None:
            ratios = np.asarray(aspect_ratios) if isinstance(aspect_ratios, Sequence) else aspect_ratios
            order = ShapeOrder(order, ratios, step, seed, epoch)
    elif not shuffle:
        order = np.arange(count)
    else:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        shuffled = generator.permutation(count)
        order = shuffled
        if aspect_ratios is not None:
            # images of one shape fill a batch with less padding; steps, not images, are then drawn at random
            order = _by_aspect_ratio(shuffled, np.asarray(aspect_ratios), step, generator)
    # samples of the step that is not full
    last = 0 if drop_last else count % step
    batches = -(-last // of_batches)  # of the last step
    # without what `drop_last` leaves out; more where some process would have a batch without a sample
    length = count - count % step + max(last, batches * num_processes)
    full = count // step * accumulation
    return EpochBatches(
        epoch, Begun(order, length), step, accumulation, num_processes, process_index, range(full + batches)
    )


@dataclass(frozen=True)
class EpochBatches(Sequence[list[Key]]):
    """The batches of one process in one epoch, made when they are asked for: what is kept is 8 bytes per sample, and of
    shards nothing.

    Attributes:
        order: all samples of the epoch.
        step: samples of all processes in one optimiser step.
        accumulation: batches of a step.
        batches: the numbers of the batches that this sequence goes through.
    """

    epoch: int
    order: Order
    step: int
    accumulation: int
    num_processes: int
    process_index: int
    batches: range

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, which: int) -> list[Key]: ...
    @overload
    def __getitem__(self, which: slice) -> EpochBatches: ...
    def __getitem__(self, which: int | slice) -> list[Key] | EpochBatches:
        if isinstance(which, slice):
            return replace(self, batches=self.batches[which])
        step, batch = divmod(self.batches[which], self.accumulation)
        samples = self.order[step * self.step : (step + 1) * self.step]  # of all processes in this step
        of_batch = self.step // self.accumulation
        # First to the batches of the step, then to the processes: a batch of all processes together is what one process
        # would have in it.
        shared = np.array_split(samples, -(-len(samples) // of_batch))[batch]
        mine = np.array_split(shared, self.num_processes)[self.process_index]
        return [(self.epoch, int(index)) for index in mine]


def _by_aspect_ratio(order: np.ndarray, ratios: np.ndarray, step: int, generator: np.random.Generator) -> np.ndarray:
    """Reorder whole steps so that each holds images of similar shape; the incomplete last step stays last."""
    parts = []
    full = len(order) // step * step
    for start in range(0, full, step * BUCKET_BATCHES):
        # already shuffled: each window is a random choice
        window = order[start : min(start + step * BUCKET_BATCHES, full)]
        window = window[np.argsort(ratios[window], kind="stable")].reshape(-1, step)  # [steps, samples of a step]
        parts.append(generator.permutation(window, axis=0).reshape(-1))
    return np.concatenate([*parts, order[full:]])


def steps_per_epoch(count: int, batch_size: int, num_processes: int = 1, drop_last: bool = False) -> int:
    """How many batches `epoch_batches` gives each process.

    >>> steps_per_epoch(10, 4)
    3
    """
    share = count / (batch_size * num_processes)
    return math.floor(share) if drop_last else math.ceil(share)
