"""Work on many items by some threads, results in order, few of them waiting at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
_WAITING = 4  # results a thread may be ahead


def in_order(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """The function of each item, in their order. Image decoders let other threads run, so threads are enough.

    Args:
        workers: threads; 0 works in the caller's own.

    Raises:
        whatever the function raises.
    """
    if workers < 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _WAITING * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # after an error, or where the caller stops early: what has not begun need not run
            for future in waiting:
                future.cancel()
