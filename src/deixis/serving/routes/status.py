"""Routes about the server itself: its models, counters, and whether it takes requests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from deixis.serving.door import refused
from deixis.serving.routes.answering import serving_of


def add_status_routes(app: FastAPI) -> None:
    """`/v1/models`, `/metrics`, `/health` and `/ready`."""
    for path, endpoint in (
        ("/v1/models", list_models),
        ("/metrics", show_metrics),
        ("/health", health),
        ("/ready", ready),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], response_model=None)


async def list_models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The served models by name; the first of each kind is the default."""
    models = serving_of(request).models
    return {
        "detectors": [{"name": name, "names": list(one.names)} for name, one in models.detectors.items()],
        "segmenters": [{"name": name} for name in models.segmenters],
    }


async def show_metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    text = serving_of(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


async def ready(request: Request) -> Response:
    """Whether the models are warm and requests are taken."""
    return Response("ready") if request.app.state.ready else refused(503, "not ready", {"Retry-After": "1"})
