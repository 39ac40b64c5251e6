"""URLs that others give: of allowed hosts alone, whatever they are written as, lead to or stand for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from deixis.data.inputs.download import download
from deixis.errors import DataError


class _Server(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None]] = []  # noqa: RUF012 - of all requests

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "/secret")
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    web = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield web.server_port
    web.shutdown()
    web.server_close()


@pytest.fixture(autouse=True)
def unseen() -> None:
    _Server.seen.clear()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "LOCALHOST", "localhost.", "127.0.0.1.", "①②⑦.0.0.1"),
        *("images.example.org@127.0.0.1", "127.0.0.1#images.example.org", "images.example.org.evil.example"),
    ],
)
def test_other_hosts_however_they_are_written(host: str, port: int) -> None:
    for allowed in ((), ("images.example.org", "example.org"), (f"images.example.org:{port}",)):
        for url in (f"http://{host}:{port}/a", f"http://{host}/a"):
            with pytest.raises(DataError, match=r"not fetched|no URL"):
                download(url, hosts=allowed)
    assert not _Server.seen


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1", "//127.0.0.1/a", "a"])
def test_other_schemes(url: str) -> None:
    with pytest.raises(DataError, match="not fetched"):
        download(url, hosts=("127.0.0.1", ""))


def test_an_allowed_host_and_port_and_no_other(port: int) -> None:
    assert download(f"http://127.0.0.1:{port}/a", hosts=(f"127.0.0.1:{port}",)) == b"content"
    assert download(f"http://localhost:{port}/a", hosts=(f"localhost:{port}",)) == b"content"
    with pytest.raises(DataError, match="not fetched"):
        download(f"http://127.0.0.1:{port}/a", hosts=("127.0.0.1",))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1", "::"]
)
def test_a_name_that_stands_for_this_machine(address: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(host: str, asked: int, **_: Any) -> list[Any]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, asked))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    name = f"images.example.org:{port}"
    with pytest.raises(DataError, match=r"stands for .*, an address of this machine"):
        download(f"http://{name}/a", hosts=(name,))
    assert not _Server.seen


def test_the_address_that_is_checked_is_the_one_that_is_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the second time is asked once."""
    answers = iter(["192.0.2.1", "127.0.0.1"])

    def resolved(host: str, asked: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), asked))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr("deixis.data.inputs.download.TIMEOUT_S", 0.05)
    with pytest.raises(DataError, match="cannot be downloaded"):
        download(f"http://images.example.org:{port}/a", hosts=(f"images.example.org:{port}",))
    assert next(answers) == "127.0.0.1"
    assert not _Server.seen


def test_no_redirect_and_no_proxy_for_others_urls(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="reports 302"):
        download(f"http://127.0.0.1:{port}/away", hosts=(f"127.0.0.1:{port}",), headers={"Authorization": "Token a"})
    assert _Server.seen == [("/away", "Token a")]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert download(f"http://127.0.0.1:{port}/away") == b"content", "users' own URLs may lead elsewhere"
