"""uvicorn's protocol with a deadline for the head of each request and a bound on the number of connections.

uvicorn itself waits without end for a head that comes a byte at a time, and for a client that takes no answer; bodies
have their deadline in `door.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connection(H11Protocol):
    """One connection. `with_limits` makes the class that uvicorn is given.

    Attributes:
        head_s: seconds in which the head of a request must have come, counted from the connection or its first byte.
        take_s: seconds in which a client must take what waits for it.
        max_open: connections at a time; more are answered 503 and closed.
    """

    head_s = 10.0
    take_s = 60.0
    max_open = 1024
    _deadline: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        # This connection is among them already.
        if len(self.connections) > self.max_open:
            transport.write(_BUSY)
            transport.close()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        super().data_received(data)
        # A head has come in whole, or what came is none.
        if self.conn.their_state is not h11.IDLE:
            self._expect_nothing()
        # The first byte of the next request on a connection that was kept.
        elif self._deadline is None and data:
            self._expect_head()

    def pause_writing(self) -> None:
        """The client does not take what waits for it."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.take_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has."""
        self._moves()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._expect_nothing()
        self._moves()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_s, self._give_up)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _moves(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.write(_LATE)
            self.transport.close()


def with_limits(head_s: float, take_s: float, max_open: int) -> type[Connection]:
    """The class with other limits: uvicorn makes the objects itself."""
    return type("LimitedConnection", (Connection,), {"head_s": head_s, "take_s": take_s, "max_open": max_open})
