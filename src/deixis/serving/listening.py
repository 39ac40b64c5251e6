"""An address and the server that answers on it: what `serve`, `play` and `review serve` share."""

from __future__ import annotations

import errno
import os
import socket
import sys
from math import ceil
from types import TracebackType
from typing import Any

import uvicorn

from deixis.console import print_text
from deixis.errors import OptionError
from deixis.serving.connections import Connection, with_limits


class Listener:
    """An address that this process has, so that a port that is taken is reported before models are loaded. Clients are
    answered once `run` has started its application.

    Attributes:
        url: the address, with the port that was chosen where 0 was given.

    Raises:
        OptionError: the port is taken, or the host is none of this machine's.
    """

    def __init__(self, host: str, port: int) -> None:
        written = f"[{host}]" if ":" in host else host
        self.url = f"http://{written}:{port}"
        try:
            self.sockets = _bound(host, port)
        except OSError as error:
            raise self._taken(error) from error
        self.url = f"http://{written}:{self.sockets[0].getsockname()[1]}"
        self.server: uvicorn.Server | None = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self.sockets:
            one.close()

    def stopping(self) -> bool:
        """Whether the server was told to stop."""
        return self.server is not None and self.server.should_exit

    def run(
        self,
        app: Any,
        *lines: str,
        head_s: float = Connection.head_s,
        take_s: float = Connection.take_s,
        max_connections: int = Connection.max_open,
        finish_s: float = 10.0,
    ) -> None:
        """Print what is there, then answer until SIGTERM or Ctrl-C, and finish what is open.

        Args:
            lines: what to print.
            head_s, take_s, max_connections: see `Connection`.
            finish_s: how long open requests may take to end.

        Raises:
            OptionError: another process listens on the address meanwhile.
        """
        config = uvicorn.Config(
            app,
            log_level="warning",
            http=with_limits(head_s, take_s, max_connections),
            timeout_graceful_shutdown=ceil(finish_s),
            server_header=False,
            h11_max_incomplete_event_size=1 << 16,
        )
        self.server = uvicorn.Server(config)
        try:
            for one in self.sockets:
                one.listen(config.backlog)
        except OSError as error:
            raise self._taken(error) from error
        for line in lines:
            print_text(line)
        sys.stdout.flush()  # whoever waits for the address reads it now, from a pipe too
        self.server.run(self.sockets)

    def _taken(self, error: OSError) -> OptionError:
        why = error.strerror or error
        return OptionError(f"--port: cannot listen on {self.url} ({why}); choose another --port or --host")


def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets of all addresses that a host has here, on one port: localhost may have two. None listens yet."""
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                found.append(_socket(family, kind, protocol, (place[0], port, *place[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
            else:
                port = found[0].getsockname()[1]
        if missing is not None and not found:
            raise missing
    except OSError:
        for one in found:
            one.close()
        raise
    return found


def _socket(family: int, kind: int, protocol: int, place: tuple[Any, ...]) -> socket.socket:
    one = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere the option would let two servers have one port
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise [::] would take the port for IPv4 too, which has a socket of its own here.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(place)
    except OSError:
        one.close()
        raise
    return one
