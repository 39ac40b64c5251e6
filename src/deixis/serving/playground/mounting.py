"""The playground in the server's application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deixis.serving.playground.actions import Playground
from deixis.serving.playground.page import CSS, make_page

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
"""Nothing is fetched from elsewhere, whatever a library would like to."""


def mount_playground(
    app: FastAPI,
    *,
    detectors: Mapping[str, str],
    segmenters: Mapping[str, str],
    url: str,
    max_bytes: int,
    stopping: Callable[[], bool],
) -> None:
    """The page at `/`, behind the routes that the application has already; its questions wait in the same queue.

    Args:
        detectors, segmenters: folders or hub ids of the models by name.
        max_bytes: of a file.
        stopping: whether the server is about to end; pages that are open are then let go.
    """
    serving = app.state.serving

    def turn(work: Callable[[], Any]) -> Any:
        answer = serving.batches.call(work)
        try:
            return answer.result(serving.timeout_s)
        finally:
            answer.cancel()  # where it has not begun, it need not

    page = make_page(Playground(serving.models, turn, detectors, segmenters, url, serving.max_pixels))
    page.state_session_capacity = 100
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        css=CSS,
    )
    # The route that was added last is Gradio's.
    mount: Any = app.router.routes[-1]
    gradio_app = mount.app
    mount.app = _OwnContentOnly(mount.app)
    _let_go(app, gradio_app, stopping)


class _OwnContentOnly:
    """Adds the policy to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        await self.app(scope, receive, with_policy)


def _let_go(app: FastAPI, gradio_app: Any, stopping: Callable[[], bool]) -> None:
    """An open page keeps a connection; it has to end before the server can."""
    inner = app.router.lifespan_context

    async def watch() -> None:
        while not stopping():
            await asyncio.sleep(0.2)
        gradio_app.stop_event.set()

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[Any]:
        async with inner(of) as state:
            task = asyncio.create_task(watch())
            yield state
            task.cancel()

    app.router.lifespan_context = lifespan
