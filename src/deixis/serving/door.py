"""What a request passes before it is looked at: token, host, origin, size, time; and how it is counted."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deixis.serving.batches import QueueFullError
from deixis.serving.budget import Budget, Take
from deixis.serving.metrics import Metrics

OPEN = ("/health", "/ready")
"""Paths that need no token: they say nothing but that the server is there."""
UNKNOWN = "other"
"""The route that paths are counted under which the server does not have, so that their number stays bounded."""
_POLICY_VIOLATION = 1008
_BODIES = 16  # of the maximum size, that may be in memory together


@dataclass(frozen=True)
class Limits:
    """What a client may ask of the server.

    Attributes:
        token: that each request must bear; empty where none is needed.
        hosts: names that the server is addressed by; empty for any. A page of another site that resolves its name to
            this machine is thereby refused.
        max_bytes: of a body.
        body_s: seconds in which a body must have come.
        max_open: requests at a time.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    max_bytes: int = 20 << 20
    body_s: float = 30.0
    max_open: int = 256


class Door:
    """Middleware that refuses what breaks the limits, and hands on requests whose body is there in whole."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._open = 0
        self._bodies = Budget(_BODIES * limits.max_bytes, "bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if self._refused(scope) is not None:
                # By ASGI, a connection must be received before it can be closed.
                await receive()
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = time.monotonic(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._open += 1
        try:
            with self._bodies.hold() as take:
                body = await self._checked(scope, receive, take)
                if isinstance(body, JSONResponse):
                    await body(scope, receive, counted)
                else:
                    await self.app(scope, _replayed(body, receive), counted)
        finally:
            self._open -= 1
            route = getattr(scope.get("route"), "path", UNKNOWN)  # as it is written in the application, without ids
            self.metrics.answered(route, status, time.monotonic() - begun)

    async def _checked(self, scope: Scope, receive: Receive, take: Take) -> bytes | JSONResponse:
        """The body, or why it is refused."""
        refusal = self._refused(scope)
        if refusal is not None:
            return refusal
        if self._open > self.limits.max_open:
            return refused(503, "too many requests are open", {"Retry-After": "1"})
        # By the stated length at once; a body without one, or longer than stated, is stopped while it comes.
        length = _headers(scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.max_bytes:
            return self._too_large()
        try:
            async with asyncio.timeout(self.limits.body_s):
                return await self._body(receive, take)
        except QueueFullError as error:
            return refused(503, f"{error}; ask again later", {"Retry-After": str(error.retry_after_s)})
        except TimeoutError:
            return refused(408, f"the body did not come within {self.limits.body_s:g} s", {"Connection": "close"})

    def _refused(self, scope: Scope) -> JSONResponse | None:
        """Why a request is refused for its head; None where it is not."""
        headers = _headers(scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self.limits.hosts and _host(host) not in self.limits.hosts:
            return refused(421, f"this server is not called {host[:100]!r}")
        # Browsers name the page that asks; tools name none.
        if origin and _netloc(origin) != host.lower():
            return refused(403, "pages of other sites may not ask this server")
        if scope["path"] not in OPEN and not self._bears_token(headers.get("authorization", "")):
            # a browser asks its user for the second kind, so that pages can be used where a token is needed
            kinds = "Bearer, Basic" if "text/html" in headers.get("accept", "") else "Bearer"
            return refused(401, "a bearer token is required", {"WWW-Authenticate": kinds})
        return None

    async def _body(self, receive: Receive, take: Take) -> bytes | JSONResponse:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return refused(400, "the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > self.limits.max_bytes:
                return self._too_large()
            take(len(part))
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> JSONResponse:
        return refused(413, f"the body has more than {self.limits.max_bytes} bytes", {"Connection": "close"})

    def _bears_token(self, header: str) -> bool:
        """Whether the token is there, as a bearer's or as the password of whichever name; compared in constant time."""
        kind, _, value = header.partition(" ")
        given = value.strip().encode("latin-1", "replace") if kind.lower() == "bearer" else b""
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (ValueError, binascii.Error):
                given = b""
        return not self.limits.token or hmac.compare_digest(given, self.limits.token.encode())


def refused(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that is an error."""
    return JSONResponse({"error": why}, status, {"X-Content-Type-Options": "nosniff", **(headers or {})})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            # Later calls wait for the client to leave.
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host(header: str) -> str:
    """The host of a `Host` header, without its port.

    >>> _host("localhost:8000"), _host("[::1]:8000")
    ('localhost', '::1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
