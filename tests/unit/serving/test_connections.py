"""Clients that are slow, take nothing, leave or are too many, on real sockets: they are cut off, others answered."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from fastapi import FastAPI, Response
from small_reviews import small_review
from stand_in_server import Server, image

from deixis.options.review.serve import ReviewServeOptions
from deixis.recipes.review.serve import serve_review
from deixis.serving import listening as listening_module
from deixis.serving.door import Limits
from deixis.serving.listening import Listener


class Impatient(Listener):
    """A listener with short deadlines; the latest one made."""

    latest: Impatient | None = None

    def run(self, app: Any, *lines: str, **limits: Any) -> None:
        Impatient.latest = self
        super().run(app, *lines, **{**limits, "head_s": 0.3, "take_s": 0.3, "max_connections": 4})


class Listening:
    """A server that listens, with short deadlines."""

    def __init__(self, serve: Callable[[], object], server: Server | None = None) -> None:
        self.served = server
        Impatient.latest = None
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        while Impatient.latest is None or Impatient.latest.server is None or not Impatient.latest.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.uvicorn, self.port = Impatient.latest.server, int(Impatient.latest.url.rpartition(":")[2])

    @property
    def server(self) -> Server:
        """What `deixis serve` serves here."""
        assert self.served is not None
        return self.served

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(20)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait_for(self, connections: int) -> None:
        until = time.monotonic() + 30
        while len(self.uvicorn.server_state.connections) != connections:
            assert time.monotonic() < until
            time.sleep(0.005)

    def healthy(self) -> bool:
        with self.connect() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b'{"status":"ok"}' in rest(connection)


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    """Models behind HTTP."""

    def large(app: FastAPI) -> None:
        app.add_api_route("/large", lambda: Response(bytes(30_000_000)), response_model=None)

    server = Server(Limits(hosts=("localhost",), body_s=0.3), mounts=[large])
    with Impatient("127.0.0.1", 0) as listener:
        one = Listening(lambda: listener.run(server.app), server)
        yield one
        one.stop()


@pytest.fixture(scope="module")
def reviewing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """`deixis review serve`, whole."""
    with small_review(tmp_path_factory.mktemp("review")) as store:
        options = ReviewServeOptions(data=str(store.file), port=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening_module, "Listener", Impatient)
        one = Listening(lambda: serve_review(options))
        yield one
        one.stop()


@pytest.fixture(params=["listening", "reviewing"])
def each(request: pytest.FixtureRequest) -> Listening:
    """Both servers in turn."""
    found: Listening = request.getfixturevalue(request.param)
    return found


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "begun", [b"", b"GET /v1/detect HTTP/1.1\r\nHost: localh", b"GET / HTTP/1.1\r\nX: " + b"a" * 99]
)
def test_a_slow_head_is_given_up(each: Listening, begun: bytes) -> None:
    with each.connect() as connection:
        connection.sendall(begun)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
    assert each.healthy()


def test_a_head_that_drips_gets_no_longer_for_it(each: Listening) -> None:
    with each.connect() as connection:
        connection.settimeout(0.02)
        for _ in range(500):
            with suppress(TimeoutError):
                connection.sendall(b"a")
                if connection.recv(1 << 16).startswith(b"HTTP/1.1 408 "):
                    break
        else:
            pytest.fail("each drop was given the time of a head")


def test_a_second_request_of_a_connection_has_its_own_deadline(each: Listening) -> None:
    with each.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):  # head and body may come apart
            answer += connection.recv(1 << 16)
        connection.sendall(b"GET /hea")
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_is_given_up(listening: Listening) -> None:
    with listening.connect() as connection:
        connection.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
    assert listening.healthy()


def test_a_client_that_takes_no_answer_is_cut_off(listening: Listening) -> None:
    with listening.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listening.wait_for(1)
        listening.wait_for(0)  # while this end is open
    assert listening.healthy()


def test_more_connections_than_are_taken_are_told_so(each: Listening) -> None:
    held = [each.connect() for _ in range(4)]
    each.wait_for(4)
    with each.connect() as connection:
        answer = rest(connection)
    for one in held:
        one.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer


def test_what_a_client_that_leaves_has_asked_is_not_answered(listening: Listening) -> None:
    detector, batches = listening.server.detector, listening.server.app.state.serving.batches
    detector.gate.clear()
    detector.begun.clear()
    body = json.dumps({"image": image(), "names": ["a"]}).encode()
    asked = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with listening.connect() as first:
        first.sendall(asked)
        detector.begun.wait(10)
        done = len(detector.sizes)
        with listening.connect() as second:
            second.sendall(asked)
            while batches.waiting < 1:
                time.sleep(0.005)
        job = batches._jobs[0]
        while not job.answer.cancelled():
            time.sleep(0.005)
        detector.gate.set()
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    listening.wait_for(0)
    assert detector.sizes[done:] == [1], "of the first alone"
