"""One file from the web: http and https alone, bounded in size and time; for a server, of named hosts alone."""

from __future__ import annotations

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from deixis.errors import DataError, UnreadableImageError

MAX_BYTES = 64 << 20
TIMEOUT_S = 20.0
"""Of a connection, and of each wait for more."""
MAX_SECONDS = 60.0
"""Of a whole download: a server may send a byte at a time."""
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


def is_url(text: str) -> bool:
    """Whether a text names a place on the web.

    Raises:
        DataError: it is a URL of a kind that is not read.

    >>> is_url("https://example.org/a.jpg"), is_url("photos/a.jpg")
    (True, False)
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if found is None:
        return False
    if found[1].lower() not in ("http", "https"):
        raise DataError(f"{text}: {found[1]}:// is not read; give an http or https URL, or a downloaded file")
    return True


def download(
    url: str,
    *,
    hosts: Collection[str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> bytes:
    """The content of a URL.

    Args:
        hosts: where the URL comes from someone else than the user: the hosts that may be asked, as NAME for the
            usual ports or NAME:PORT. No redirect and no proxy is then followed, and a name, unless it is `localhost`
            or an address itself, may not stand for an address of this machine or its network link.
        headers: sent with the request, such as an authorization.
        body: sent with the request, which is then a POST.

    Raises:
        DataError: the host is not allowed, or the server does not answer in time, reports an error, or sends more
            than 64 MB.
    """
    if hosts is not None:
        _require_host(url, hosts)
    opener = _opener(*_FREE) if hosts is None else _opener(_GuardedHttp(), _GuardedHttps())
    until = time.monotonic() + MAX_SECONDS
    try:
        request = urllib.request.Request(url, body, headers={"User-Agent": "deixis", **(headers or {})})
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return _content(answer, url, until)
    except urllib.error.HTTPError as error:
        raise UnreadableImageError(f"{url}: the server reports {error.code} {error.reason}; check the URL") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise UnreadableImageError(f"{url}: cannot be downloaded ({why}); check the URL and the connection") from error


def _require_host(url: str, hosts: Collection[str]) -> None:
    """Raises DataError for a URL that is not http or https, has a name and password, or is of another host."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise DataError(f"{url[:100]!r} is no URL ({error})") from error
    name = f"[{host}]" if ":" in host else host
    named = {f"{name}:{port or _PORTS.get(scheme)}"} | ({name, host} if port in (None, _PORTS.get(scheme)) else set())
    if scheme not in _PORTS or "@" in parts.netloc or named.isdisjoint(hosts):
        allowed = f"those of {', '.join(hosts)}" if hosts else "none"
        raise DataError(f"URLs of {(parts.netloc or scheme)[:100]!r} are not fetched; allowed are {allowed}")


def _connect(known: str, address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:
    """A connection to an address that `known`, a host that is allowed, may stand for; looked up once."""
    failed: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        if not _may_stand_for(known, str(place[0])):
            raise OSError(f"{known} stands for {place[0]}, an address of this machine or its network link")
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            failed = error
    raise failed


def _may_stand_for(name: str, address: str) -> bool:
    """Whether a name may have an address: loopback, link-local and special ones only where they are meant.

    >>> _may_stand_for("images.example.org", "127.0.0.1"), _may_stand_for("127.0.0.1", "127.0.0.1")
    (False, True)
    """
    found = ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    special = found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast
    return not (special or found.is_reserved) or name == "localhost" or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class _GuardedHttp(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_guarded, http.client.HTTPConnection), request)


class _GuardedHttps(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_guarded, http.client.HTTPSConnection), request)


def _guarded(kind: type[http.client.HTTPConnection], host: str, **more: Any) -> http.client.HTTPConnection:
    connection = kind(host, **more)
    # what the class's `connect` calls, for TLS too: the address that is checked is the one that is used
    connection._create_connection = partial(_connect, connection.host)  # type: ignore[attr-defined]
    return connection


def _content(answer: Any, url: str, until: float) -> bytes:
    if answer.headers.get_content_maintype() == "multipart":  # how cameras send JPEG after JPEG, without an end
        raise UnreadableImageError(
            f"{url}: sends a stream of frames, not one image; give it to --stream, in Python as deixis.Stream(url)"
        )
    parts: list[bytes] = []
    size = 0
    # `read1` returns what has come; `read` would wait for a whole chunk, past `until`
    while part := answer.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise UnreadableImageError(f"{url}: sends more than {MAX_BYTES >> 20} MB; download it and give the file")
        if time.monotonic() > until:
            raise UnreadableImageError(f"{url}: takes longer than {MAX_SECONDS:.0f} s; download it and give the file")
    return b"".join(parts)


_FREE = (
    urllib.request.ProxyHandler(),
    urllib.request.HTTPHandler(),
    urllib.request.HTTPSHandler(),
    urllib.request.HTTPRedirectHandler(),
)


def _opener(*handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Of the handlers that urllib has, those for the web: none for files, FTP or data in the URL itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *handlers,
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
