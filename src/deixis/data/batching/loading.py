"""Loading the batches of an epoch, in this process or in workers; damaged pictures may be replaced."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from deixis.data.batching.epochs import Key
from deixis.errors import DeixisError, UnreadableImageError

SHARED_BYTES = 1 << 20  # smaller tensors go into the pickle, unless they are shared already


class InTransfer:
    """Wraps what a worker sends; it unpickles as what it wraps.

    torch moves each tensor between processes through a file descriptor of its own; with three tensors per image and
    a few workers that alone reaches the usual limit of 1024 open files. Only large tensors are worth one.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        file = io.BytesIO()
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.dump(self.content)
        return _received, (file.getvalue(), pickler.shared)  # torch pickles the list itself, into shared memory


class _Pickler(pickle.Pickler):
    """Leaves out the tensors for shared memory, which torch's own pickler then passes on."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.shared: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        if value.nbytes < SHARED_BYTES and not value.is_shared():  # type: ignore[no-untyped-call]
            return None
        self.shared.append(value)
        return len(self.shared) - 1

    def reducer_override(self, value: Any) -> Any:
        # by value, where torch would open a file descriptor
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, shared: list[Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self.shared = shared

    def persistent_load(self, number: int) -> Tensor:
        return self.shared[number]


def _received(content: bytes, shared: list[Tensor]) -> Any:
    return _Unpickler(content, shared).load()


class Replaced(NamedTuple):
    """An item in the place of one that cannot be read."""

    item: Any
    error: UnreadableImageError


class WithReplaced(NamedTuple):
    """A batch, and what some of its items replace."""

    batch: Any
    errors: list[UnreadableImageError]


class UnreadableImages:
    """The damaged pictures of one run and process.

    Args:
        limit: how many are left out; one more raises.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.named: list[str] = []

    def note(self, error: UnreadableImageError) -> None:
        """Count a picture, and warn of it, the first time that it occurs.

        Raises:
            UnreadableImageError: it is one too many.
        """
        text = str(error)
        if text in self.named:
            return
        if len(self.named) >= self.limit:
            more = f"{self.limit} others were left out before it" if self.limit else "none may be left out"
            raise UnreadableImageError(
                f"{text}; {more}: repair them (deixis data check names all), or raise --max-unreadable-images"
            )
        self.named.append(text)
        warnings.warn(
            f"{text}; another picture takes its place in training ({len(self.named)} of at most {self.limit})",
            stacklevel=2,
        )


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
        batch = batch if get_worker_info() is None else InTransfer(batch)  # in this process nothing is sent
        return WithReplaced(batch, replaced) if replaced else batch


def _quiet_worker(worker: int) -> None:
    """One thread per worker: the workers themselves are the parallelism."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
