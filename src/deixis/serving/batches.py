"""Requests of several clients gathered into batches, which one thread answers in turn."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

Run = Callable[[Any, Sequence[Any]], Sequence[Any]]
"""Of a question and the items that it is asked about, one answer each."""
_NEWEST = 0.2  # weight of the latest batch in the average time


class QueueFullError(Exception):
    """As many wait as may; `retry_after_s` is when to ask again."""

    def __init__(self, retry_after_s: int, what: str = "requests") -> None:
        super().__init__(f"too many {what} wait")
        self.retry_after_s = retry_after_s


class StoppedError(Exception):
    """The server stops: what was begun is finished, nothing more is taken."""


class _Alone:
    """The question of a function that is called by itself."""


@dataclass
class _Job:
    question: Hashable
    item: Any
    answer: Future[Any] = field(default_factory=Future)


class Batches:
    """A queue, and the thread that answers it.

    Items about which the same question is asked, by whichever client, are answered together. A batch waits a moment for
    more of its kind. Where a batch fails, its items are tried one by one, so that none fails for another.

    Args:
        run: answers a batch.
        max_batch: items per batch.
        wait_s: how long the first item of a batch waits for others.
        max_waiting: items that may wait; more are refused.
        patience_s: an item that would wait longer than this, by the time that the latest ones took, is refused, too.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch: int = 8,
        wait_s: float = 0.005,
        max_waiting: int = 64,
        patience_s: float = math.inf,
    ) -> None:
        self._run, self.max_batch, self.wait_s, self.max_waiting = run, max_batch, wait_s, max_waiting
        self.patience_s = patience_s
        self._jobs: deque[_Job] = deque()
        self._changed = Condition()
        self.closing = False
        """Nothing more is taken."""
        self._item_s = 0.1  # average time of an item
        self.sizes: list[Callable[[int], None]] = []
        """Called with the size of each batch."""
        self._thread = Thread(target=self._loop, name="deixis-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._jobs)

    def call(self, function: Callable[[], Any], *, limited: bool = True) -> Future[Any]:
        """What a function returns that uses a model, when its turn comes; otherwise as `ask`."""
        return self.ask(_Alone(), function, limited=limited)

    def ask(self, question: Hashable, item: Any, *, limited: bool = True) -> Future[Any]:
        """The answer to come; cancelling it before its batch begins takes the item out of the queue.

        Args:
            limited: refuse it where too many items wait; False for who asks only a few at a time.

        Raises:
            QueueFullError: too many wait.
            StoppedError: after `close`.
        """
        with self._changed:
            if self.closing:
                raise StoppedError
            wait_s = len(self._jobs) * self._item_s
            if limited and (len(self._jobs) >= self.max_waiting or wait_s > self.patience_s):
                raise QueueFullError(math.ceil(max(1.0, wait_s)))
            job = _Job(question, item)
            self._jobs.append(job)
            self._changed.notify_all()
            return job.answer

    def close(self) -> None:
        """Take nothing more, answer what waits, and return when that is done."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()
        self._thread.join()

    def _loop(self) -> None:
        while (batch := self._next()) is not None:
            # Cancelled ones drop out; from here on a cancellation comes too late.
            batch = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if batch:
                begun = time.monotonic()
                self._answer(batch)
                took = (time.monotonic() - begun) / len(batch)
                # A running average, in which older batches fade.
                self._item_s += _NEWEST * (took - self._item_s)

    def _next(self) -> list[_Job] | None:
        """The next batch; None when there is no more to come."""
        with self._changed:
            while not self._jobs:
                if self.closing:
                    return None
                self._changed.wait()
            question = self._jobs[0].question
            until = time.monotonic() + self.wait_s
            # A server that stops does not wait for company.
            while not self.closing and self._count(question) < self.max_batch:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = [job for job in self._jobs if job.question == question][: self.max_batch]
            taken = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in taken)
            return batch

    def _count(self, question: Hashable) -> int:
        return sum(job.question == question for job in self._jobs)

    def _answer(self, batch: Sequence[_Job]) -> None:
        question, items = batch[0].question, [job.item for job in batch]
        alone = isinstance(question, _Alone)
        if not alone:
            for report in self.sizes:
                report(len(batch))
        try:
            answers = [items[0]()] if alone else self._run(question, items)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for job in batch:
                self._answer([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)
