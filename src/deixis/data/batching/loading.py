"""Batches for training and evaluation: a function of (seed, epoch, sample index) and of nothing else.

Every sample draws from a generator of its own, seeded by those three numbers, and the order of an epoch is drawn
from (seed, epoch). So results do not depend on how many workers load, and a run resumes in the middle of an epoch
by skipping the batches that are done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, overload

import cv2
import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, get_worker_info

from deixis.data.batching.unreadable import Replaced, UnreadableImages, WithReplaced
from deixis.data.batching.worker_transfer import Parcel
from deixis.data.detect.collate import collate
from deixis.data.detect.transforms import Transform
from deixis.data.pixels.images import load
from deixis.data.sets.mixing import Mixture
from deixis.errors import DeixisError, OptionError, UnreadableImageError
from deixis.records import Batch, Dataset, Prompt, Sample

Key = tuple[int, int]  # (epoch, index)
SEEDS = 2**62  # what a step draws for a sample is a function of one of so many numbers
PromptFor = Callable[[Sample, np.random.Generator], Prompt]

_BUCKET_BATCHES = 16  # aspect ratios are sorted within this many batches, which keeps the order random enough


class SampleDataset(torch.utils.data.Dataset):
    """Decoded, transformed samples with their prompts, by (epoch, index).

    Args:
        dataset: where samples come from.
        transform: draws what is random from the generator it is handed.
        prompt_for: the prompt of a transformed sample; may draw too (negative names, order).
        seed: not negative.
        decode_short_px: lets JPEGs be decoded smaller, down to this short side; see `images.load_image`. Give the
            largest short side of the transform, divided by the smallest share of a crop.
        keep_masks: carry masks through the transform; without, they are dropped first, which saves their resizing
            (a detector's batch has no use for them).
        mixture: which samples an epoch shows; all of them, once, without one. An index is then a place of the epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        prompt_for: PromptFor,
        seed: int,
        decode_short_px: int | None = None,
        keep_masks: bool = False,
        mixture: Mixture | None = None,
    ) -> None:
        if seed < 0:
            raise OptionError(f"seed must be 0 or more, got {seed}")
        self.dataset = dataset
        self.transform = transform
        self.prompt_for = prompt_for
        self.seed = seed
        self.decode_short_px = decode_short_px
        self.keep_masks = keep_masks
        self.mixture = mixture
        self._rows: tuple[int, Int[np.ndarray, " places"]] | None = None  # of the epoch that was last asked for

    def __len__(self) -> int:
        return len(self.dataset) if self.mixture is None else len(self.mixture)

    def rows(self, epoch: int) -> Int[np.ndarray, " places"]:
        """For each index of an epoch, the position of its sample in the data set."""
        if self.mixture is None:
            return np.arange(len(self.dataset))
        if self._rows is None or self._rows[0] != epoch:
            self._rows = epoch, self.mixture.rows(epoch)
        return self._rows[1]

    def __getitem__(self, key: Key) -> tuple[Sample, Prompt]:
        """The sample of an epoch.

        Raises:
            DataError: its image cannot be read; the message names the file.
        """
        epoch, index = key
        generator = sample_generator(self.seed, epoch, index)
        sample = self.dataset[index if self.mixture is None else int(self.rows(epoch)[index])]
        if not self.keep_masks:
            sample = sample.evolve(instances=replace(sample.instances, masks_rle=None))
        sample = self.transform(load(sample, self.decode_short_px), generator)
        prompt = self.prompt_for(sample, generator)
        return sample.evolve(seed=int(generator.integers(SEEDS))), prompt


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch."""
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
    aspect_ratios: Sequence[float] | np.ndarray | None = None,
    accumulation: int = 1,
) -> EpochBatches:
    """The batches of one process in one epoch, as keys of `SampleDataset`.

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
    """
    if count < 1 or min(batch_size, accumulation) < 1 or not 0 <= process_index < num_processes:
        raise OptionError(
            "loading needs samples, a batch size and an accumulation of 1 or more and a process among "
            f"{num_processes}; got {count} samples, batch size {batch_size}, accumulation {accumulation}, process "
            f"{process_index}"
        )
    of_batches = batch_size * num_processes  # samples of one batch of each process
    step = of_batches * accumulation
    order = np.arange(count)
    if shuffle:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        order = generator.permutation(count)
        if aspect_ratios is not None:
            order = _by_aspect_ratio(order, np.asarray(aspect_ratios), step, generator)
    last = 0 if drop_last else count % step
    batches = -(-last // of_batches)  # of the last step
    order = order[: count - count % step + last]
    if last < batches * num_processes:
        order = np.concatenate([order, np.resize(order, batches * num_processes - last)])
    full = count // step * accumulation
    return EpochBatches(epoch, order, step, accumulation, num_processes, process_index, range(full + batches))


@dataclass(frozen=True)
class EpochBatches(Sequence[list[Key]]):
    """The batches of one process in one epoch, made when they are asked for: what is kept is 8 bytes a sample.

    Attributes:
        order: all samples of the epoch.
        step: samples of all processes in one optimiser step.
        accumulation: batches of a step.
        batches: the numbers of the batches that this sequence goes through.
    """

    epoch: int
    order: Int[np.ndarray, " samples"]
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
        samples = self.order[step * self.step : (step + 1) * self.step]
        of_batch = self.step // self.accumulation
        shared = np.array_split(samples, -(-len(samples) // of_batch))[batch]
        mine = np.array_split(shared, self.num_processes)[self.process_index]
        return [(self.epoch, int(index)) for index in mine]


def _by_aspect_ratio(order: np.ndarray, ratios: np.ndarray, step: int, generator: np.random.Generator) -> np.ndarray:
    """Reorder whole steps so that each holds images of similar shape; the incomplete last step stays last."""
    parts = []
    full = len(order) // step * step
    for start in range(0, full, step * _BUCKET_BATCHES):
        window = order[start : min(start + step * _BUCKET_BATCHES, full)]
        window = window[np.argsort(ratios[window], kind="stable")].reshape(-1, step)
        parts.append(generator.permutation(window, axis=0).reshape(-1))
    return np.concatenate([*parts, order[full:]])


def make_loader(
    dataset: SampleDataset,
    batches: Iterable[list[Key]],
    workers: int = 0,
    pin_memory: bool = False,
    divisor: int = 1,
    unreadable: UnreadableImages | None = None,
) -> Loader:
    """A loader of `Batch`es; see `load_batches`.

    Args:
        divisor: see `collate`.
    """

    return load_batches(dataset, batches, partial(_collate_pairs, divisor), workers, pin_memory, unreadable)


def _collate_pairs(divisor: int, pairs: Sequence[tuple[Sample, Prompt]]) -> Batch | Parcel:
    worker = get_worker_info() is not None
    batch = collate([sample for sample, _ in pairs], [prompt for _, prompt in pairs], divisor, worker)
    return Parcel(batch) if worker else batch


class Loader(DataLoader):
    """A DataLoader that raises deixis's own errors as they are, without a worker's traceback around."""

    unreadable: UnreadableImages | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its private iterator class
        for item in super().__iter__():
            if isinstance(item, DeixisError):
                raise item
            if isinstance(item, WithReplaced):
                assert self.unreadable is not None
                for error in item.errors:
                    self.unreadable.note(error)
                item = item.batch
            yield item


def load_batches(
    dataset: torch.utils.data.Dataset,
    batches: Iterable[list[Key]],
    collate_items: Callable[[Sequence[Any]], Any],
    workers: int = 0,
    pin_memory: bool = False,
    unreadable: UnreadableImages | None = None,
) -> Loader:
    """A loader of the given batches, in order.

    The batches are already one process's own: do not let a launcher shard this loader again.

    Args:
        dataset: items by key; a `DeixisError` it raises is raised by the loader as it is.
        batches: from `epoch_batches`; leave out the first ones to resume in the middle of an epoch.
        collate_items: a batch of the items of its keys.
        workers: loading processes; 0 loads in this one. Results are the same for any number.
        pin_memory: for copies to a GPU that do not block.
        unreadable: counts pictures that cannot be read, in whose place the data set's next one is shown; without it
            the first one raises.
    """
    loader = Loader(
        _Guarded(dataset, unreadable.limit if unreadable else 0),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_GuardedCollate(collate_items),
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # else each epoch would draw from, and so move, torch's global state
    )
    loader.unreadable = unreadable
    return loader


class _Guarded(torch.utils.data.Dataset):
    """Hands errors over as values: raised in a worker they would arrive wrapped in its traceback."""

    def __init__(self, dataset: Any, replacements: int) -> None:
        self.dataset = dataset
        self.replacements = replacements

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        first: UnreadableImageError | None = None
        for step in range(self.replacements + 1):
            try:
                item = self.dataset[epoch, (index + step) % len(self.dataset) if step else index]
            except UnreadableImageError as error:
                first = first or error
            except DeixisError as error:
                return error
            else:
                return Replaced(item, first) if first else item
        return first


class _GuardedCollate:
    """The same of a batch: the first error among its items, or the one that collating them gave."""

    def __init__(self, collate_items: Callable[[Sequence[Any]], Any]) -> None:
        self.collate_items = collate_items

    def __call__(self, items: Sequence[Any]) -> Any:
        errors = [item for item in items if isinstance(item, DeixisError)]
        if errors:
            return errors[0]
        replaced = [item.error for item in items if isinstance(item, Replaced)]
        try:
            batch = self.collate_items([item.item if isinstance(item, Replaced) else item for item in items])
        except DeixisError as error:
            return error
        return WithReplaced(batch, replaced) if replaced else batch


def _quiet_worker(worker: int) -> None:
    """One thread a worker: the workers themselves are the parallelism."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def steps_per_epoch(count: int, batch_size: int, num_processes: int = 1, drop_last: bool = False) -> int:
    """How many batches `epoch_batches` gives each process.

    >>> steps_per_epoch(10, 4)
    3
    """
    share = count / (batch_size * num_processes)
    return math.floor(share) if drop_last else math.ceil(share)
