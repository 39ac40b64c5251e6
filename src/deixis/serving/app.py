"""The application: the models' queue, jobs and routes, and what is mounted beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi

from deixis.serving.batches import Batches
from deixis.serving.budget import Budget
from deixis.serving.door import Door, Limits, refused
from deixis.serving.films import FilmLimits
from deixis.serving.jobs.queue import Jobs
from deixis.serving.jobs.work import Work
from deixis.serving.metrics import Metrics
from deixis.serving.models import Models
from deixis.serving.routes.answering import Serving, serving_of
from deixis.serving.routes.films import add_film_routes
from deixis.serving.routes.jobs import add_job_routes
from deixis.serving.routes.pictures import add_picture_routes

_PATIENCE = 0.7  # of a request's time: what would wait longer is told to come again, and not given up later
_IMAGES = 8  # of the maximum size, that may be in memory together
Mount = Callable[[FastAPI], object]
"""Adds pages or routes to the application, whose `app.state.serving` has models, queue and jobs. Called last, so that
a page at `/` takes no path from the routes."""


def make_app(
    models: Models,
    limits: Limits,
    *,
    max_batch: int = 8,
    wait_s: float = 0.005,
    max_waiting: int = 64,
    timeout_s: float = 60.0,
    max_pixels: int = 50_000_000,
    url_hosts: Sequence[str] = (),
    films: FilmLimits | None = None,
    folders: Mapping[str, Path] | None = None,
    jobs_folder: Path | None = None,
    max_jobs: int = 16,
    finish_s: float = 60.0,
    mounts: Sequence[Mount] = (),
) -> FastAPI:
    """The application, which warms its models up when it starts and finishes what it began when it stops.

    Args:
        films: limits of a film in a request.
        folders: by name, those below which jobs may read.
        jobs_folder: see `Jobs`.
        max_jobs: jobs that may wait.
        finish_s: how long a job that runs may take to end when the server stops.
        mounts: called with the application, in order.
    """
    batches = Batches(
        models.answer, max_batch=max_batch, wait_s=wait_s, max_waiting=max_waiting, patience_s=_PATIENCE * timeout_s
    )
    metrics = Metrics(lambda: batches.waiting)
    batches.sizes.append(lambda size: metrics.batches.observe(size))
    work = Work(models, batches, folders or {}, max_pixels)
    serving = Serving(
        models,
        batches,
        metrics,
        Jobs(work.run, jobs_folder, max_waiting=max_jobs),
        Budget(_IMAGES * max_pixels, "pixels"),
        timeout_s=timeout_s,
        max_pixels=max_pixels,
        url_hosts=url_hosts,
        films=films or FilmLimits(max_pixels=max_pixels),
    )
    app = FastAPI(title="deixis", version=version("deixis"), lifespan=_lifespan(serving, finish_s))
    app.state.serving, app.state.ready, app.state.schemas = serving, False, {}
    _add_routes(app, work)
    for mount in mounts:
        mount(app)
    app.add_middleware(Door, limits=limits, metrics=metrics)
    return app


def _lifespan(serving: Serving, finish_s: float) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What happens before the first request and after the last."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(serving.models.warm_up)
        serving.jobs.start()
        app.state.ready = True
        yield
        app.state.ready = False
        # Jobs before the queue: the one that runs still asks it.
        await run_in_threadpool(serving.jobs.close, finish_s)
        await run_in_threadpool(serving.batches.close)

    return lifespan


def _add_routes(app: FastAPI, work: Work) -> None:
    add_picture_routes(app)
    add_film_routes(app)
    add_job_routes(app, work)
    add_status_routes(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description of all routes, with the parts that their forms refer to."""
    if not app.openapi_schema:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        app.openapi_schema.setdefault("components", {}).setdefault("schemas", {}).update(app.state.schemas)
    return app.openapi_schema


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
