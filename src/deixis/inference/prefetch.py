"""Read the next images in a thread while the model works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from deixis.errors import DataError

Job = TypeVar("Job")
Key = TypeVar("Key")
T = TypeVar("T")
_AHEAD = 2


def read_ahead(read: Callable[[Key], T], keys: Iterable[Key]) -> Iterator[T]:
    """`read(key)` for each key, in order; a thread reads up to two items ahead. Errors are raised in order, too.

    Args:
        keys: taken as they are needed: there may be no end of them. Where they break off, what came before is read.
    """
    broken: list[DataError] = []
    left = until_they_break(keys, broken)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(read, key) for key in islice(left, _AHEAD))
        while waiting:
            current = waiting.popleft()
            # Before waiting for the current item, so that the thread has its next work already.
            waiting.extend(pool.submit(read, key) for key in islice(left, 1))
            yield current.result()
    if broken:
        raise broken[0]


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
        jobs: taken as they are needed, a batch ahead: there may be more than the memory holds. Where they break off,
            what came before is read.
        failed: called with the key of a job that cannot be read, which is then left out; without it that is an error.
    """
    broken: list[DataError] = []
    left = until_they_break(jobs, broken)
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
    if broken:
        raise broken[0]


def until_they_break(keys: Iterable[T], broken: list[DataError]) -> Iterator[T]:
    """The keys; an error of theirs is kept for later, as those before it are not read yet."""
    try:
        yield from keys
    except DataError as error:
        broken.append(error)
