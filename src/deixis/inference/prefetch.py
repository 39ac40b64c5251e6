"""Read the next images in a thread while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from deixis.errors import DataError

Job = TypeVar("Job")
Key = TypeVar("Key")
T = TypeVar("T")
_AHEAD = 2


def read_ahead(read: Callable[[int], T], indices: Sequence[int]) -> Iterator[T]:
    """`read(index)` for each index, in order; a thread reads up to two items ahead. Errors are raised in order, too."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, index) for index in indices[:_AHEAD]]
        for place in range(len(indices)):
            current = waiting.pop(0)
            if place + _AHEAD < len(indices):
                waiting.append(pool.submit(read, indices[place + _AHEAD]))
            yield current.result()


def read_batches(
    jobs: Iterable[tuple[Key, Job]],
    read: Callable[[Job], T],
    batch_size: int,
    *,
    workers: int,
    failed: Callable[[Key, DataError], None] | None = None,
) -> Iterator[list[tuple[Key, T]]]:
    """Batches of `read(job)`, each with its job's key, in order; threads read the next batch meanwhile.

    Args:
        jobs: taken as they are needed, a batch ahead: there may be more than the memory holds.
        failed: called with the key of a job that cannot be read, which is then left out; without it that is an error.
    """
    left = iter(jobs)
    with ThreadPoolExecutor(max(workers, 1)) as pool:

        def submitted() -> list[tuple[Key, Future[T]]]:
            return [(key, pool.submit(read, job)) for key, job in islice(left, batch_size)]

        pending = submitted()
        while pending:
            current, pending = pending, submitted()  # the next batch is read while the caller works on this one
            ready = []
            for key, future in current:
                try:
                    ready.append((key, future.result()))
                except DataError as error:
                    if failed is None:
                        raise
                    failed(key, error)
            if ready:
                yield ready
