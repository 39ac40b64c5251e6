"""One file from the web, where the user names it: http and https alone, bounded in size and time."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Any

from deixis.errors import DataError, UnreadableImageError

MAX_BYTES = 64 << 20
TIMEOUT_S = 20.0
"""Of a connection, and of each wait for more."""
MAX_SECONDS = 60.0
"""Of a whole download: a server may send a byte at a time."""
_CHUNK = 1 << 16


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


def download(url: str) -> bytes:
    """The content of a URL.

    Raises:
        DataError: the server does not answer in time, reports an error, or sends more than 64 MB.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "deixis"})
    until = time.monotonic() + MAX_SECONDS
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return _content(answer, url, until)
    except urllib.error.HTTPError as error:
        raise UnreadableImageError(f"{url}: the server reports {error.code} {error.reason}; check the URL") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise UnreadableImageError(f"{url}: cannot be downloaded ({why}); check the URL and the connection") from error


def _content(answer: Any, url: str, until: float) -> bytes:
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


def _opener() -> urllib.request.OpenerDirector:
    """Of the handlers that urllib has, those for the web: none for files, FTP or data in the URL itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPRedirectHandler(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()
