"""Read the next images in a thread while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
