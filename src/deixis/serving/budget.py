"""What all open requests may hold of something together, so that many large ones do not fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from deixis.serving.batches import QueueFullError

Take = Callable[[int], None]


class Budget:
    """An amount that is taken in parts and given back; one request may take all of it.

    Args:
        limit: the amount.
        what: that is too much, for the message.
    """

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.what, self.taken = limit, what, 0
        self._lock = Lock()

    @contextmanager
    def hold(self) -> Iterator[Take]:
        """A function that takes some; everything is given back when the block ends.

        Raises:
            QueueFullError: by the function, where others hold the rest.
        """
        mine = 0

        def take(amount: int) -> None:
            nonlocal mine
            with self._lock:
                # Who is alone may take more than the limit: otherwise one large request could never be answered.
                if self.taken > mine and self.taken + amount > self.limit:
                    raise QueueFullError(1, self.what)
                self.taken, mine = self.taken + amount, mine + amount

        try:
            yield take
        finally:
            with self._lock:
                self.taken -= mine
