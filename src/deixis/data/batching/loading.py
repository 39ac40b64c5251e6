"""Loading the batches of an epoch, in this process or in workers; damaged pictures may be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, get_worker_info

from deixis.data.batching.epochs import Key
from deixis.data.batching.unreadable import Replaced, UnreadableImages, WithReplaced
from deixis.data.batching.worker_transfer import InTransfer
from deixis.errors import DeixisError, UnreadableImageError


class Loader(DataLoader):
    """A DataLoader that raises deixis's own errors as they are, without a worker's traceback around."""

    unreadable: UnreadableImages | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its private iterator class
        for item in self._batches():
            if isinstance(item, DeixisError):
                raise item
            if isinstance(item, WithReplaced):
                assert self.unreadable is not None
                for error in item.errors:
                    self.unreadable.note(error)
                item = item.batch
            yield item

    def _batches(self) -> Iterator[Any]:
        batches = super().__iter__()
        while True:
            try:
                item = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:
                # it died between announcing a batch and handing over its shared memory, which torch does not notice
                raise RuntimeError(f"DataLoader worker is gone: {error or 'it closed its connection'}") from error
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
    """Returns errors as values: raised in a worker they would arrive wrapped in its traceback."""

    def __init__(self, dataset: Any, replacements: int) -> None:
        self.dataset = dataset
        self.replacements = replacements

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        first: UnreadableImageError | None = None
        for step in range(self.replacements + 1):
            try:
                # The next sample in the data set, whoever asks: the same replacement with any number of workers.
                item = self.dataset[epoch, (index + step) % len(self.dataset) if step else index]
            except UnreadableImageError as error:
                first = first or error
            except DeixisError as error:
                return error
            else:
                return Replaced(item, first) if first else item
        return first


class _GuardedCollate:
    """The same for a batch: the first error among its items, or the one that collating them raised."""

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
        batch = batch if get_worker_info() is None else InTransfer(batch)
        return WithReplaced(batch, replaced) if replaced else batch


def _quiet_worker(worker: int) -> None:
    """One thread per worker: the workers themselves are the parallelism."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
