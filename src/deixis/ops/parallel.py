"""Threads for compiled kernels that release the interpreter lock.

Numba has its own threads, but its portable layer aborts the process when two Python threads call it at once, its
OpenMP layer aborts a forked child, and its parallel kernels take several times as long to compile. A small pool of
Python threads has none of these problems and costs tens of microseconds per call.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="deixis-kernel")


if hasattr(os, "register_at_fork"):  # a forked child inherits the pool's object but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_tasks(task: Callable[[int], None], count: int, threads: int) -> None:
    """Calls `task(0)` ... `task(count - 1)`, in any order, on at most `threads` threads, and waits for all of them.

    The calling thread works too, so the tasks finish even if the pool is busy or `threads` is one.

    Raises:
        Exception: the first one that a task raised; tasks that had not started by then are skipped.
    """
    helpers = min(threads, count) - 1
    if helpers < 1:
        for index in range(count):
            task(index)
        return
    ticket = itertools.count()  # next() is atomic under the interpreter lock, as is append()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors and (index := next(ticket)) < count:
                task(index)
        except BaseException as error:  # also an interruption of the calling thread: the others stop, and it is raised
            errors.append(error)

    futures = [_pool(threads - 1).submit(work) for _ in range(helpers)]
    work()
    # a helper that has not started by now is not needed: all tasks are taken, or one has failed
    wait([future for future in futures if not future.cancel()])
    if errors:
        raise errors[0]
