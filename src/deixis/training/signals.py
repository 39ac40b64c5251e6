"""SIGTERM asks a run to save and exit; the loop does so between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from deixis.errors import Terminated


class StopSignal:
    """Handles SIGTERM inside its `with` block.

    By default it only sets `requested`. Inside `interrupts` it raises `Terminated` immediately, for long work between
    steps such as an evaluation.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupting = False
        self._previous: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers in no other thread
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Inside the block a request, also one from before, raises `Terminated`."""
        self._interrupting = True
        try:
            if self.requested:
                raise Terminated
            yield
        finally:
            self._interrupting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._interrupting:
            raise Terminated


@contextmanager
def worker_losses_deferred(report: bool = True) -> Iterator[None]:
    """Inside the block a loading worker may end unnoticed; torch's error for it is raised at the end of the block.

    Torch raises it from its handler of SIGCHLD, wherever the process stands, also with half of the weights changed.

    Args:
        report: False leaves the error out: the block deals with the loss of a worker already.
    """
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    handler = None if number is None else signal.getsignal(number)
    # torch sets its handler with the first loading workers; until then there is nothing to defer
    if number is None or not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    missed: list[tuple[int, FrameType | None]] = []
    signal.signal(number, lambda *given: missed.append(given))
    try:
        yield
    finally:
        signal.signal(number, handler)
    if missed and report:
        handler(*missed[0])
