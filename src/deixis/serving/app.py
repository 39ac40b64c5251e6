"""The server's routes: requests to questions, questions to the queue, answers to JSON or a picture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from deixis.errors import DeixisError, OptionError
from deixis.serving.batches import Batches, QueueFullError, StoppedError
from deixis.serving.door import Door, Limits, refused
from deixis.serving.metrics import Metrics
from deixis.serving.models import Answer, Item, Models, Question
from deixis.serving.requests import (
    Asked,
    AskedAnnotate,
    AskedDescribe,
    AskedDetect,
    AskedSegment,
    TooLargeError,
    form_as_json,
    mask_rles,
    pixels_of,
)
from deixis.text import one_line

_Questions = Callable[[Any, Models, Item], tuple[Question, Item]]


@dataclass(frozen=True)
class Serving:
    """What the routes share.

    Attributes:
        timeout_s: seconds in which a request is answered, or given up.
        max_pixels: of an image.
        url_hosts: from which images are fetched.
    """

    models: Models
    batches: Batches
    metrics: Metrics
    timeout_s: float = 60.0
    max_pixels: int = 50_000_000
    url_hosts: Sequence[str] = ()


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
) -> FastAPI:
    """The application, which warms its models up when it starts and finishes what it began when it stops."""
    batches = Batches(models.answer, max_batch=max_batch, wait_s=wait_s, max_waiting=max_waiting)
    metrics = Metrics(lambda: batches.waiting)
    batches.sizes.append(lambda size: metrics.batches.observe(size))
    serving = Serving(models, batches, metrics, timeout_s, max_pixels, url_hosts)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(models.warm_up)
        app.state.ready = True
        yield
        app.state.ready = False
        await run_in_threadpool(batches.close)

    app = FastAPI(title="deixis", version=version("deixis"), lifespan=lifespan)
    app.state.serving, app.state.ready = serving, False
    for path, form, questions in ROUTES:
        _add(app, path, form, questions)
    for path, endpoint in (("/v1/models", list_models), ("/metrics", show_metrics), ("/health", health)):
        app.add_api_route(path, endpoint, methods=["GET"])
    app.add_api_route("/ready", ready, methods=["GET"])
    paths = [*(path for path, _, _ in ROUTES), "/v1/models", "/metrics", "/health", "/ready"]
    app.add_middleware(Door, limits=limits, metrics=metrics, routes=paths)
    return app


def _add(app: FastAPI, path: str, form: type[Asked], questions: _Questions) -> None:
    async def answer(request: Request) -> Response:
        return await _answered(request, form, questions)

    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content = {kind: {"schema": schema} for kind in ("application/json", "multipart/form-data")}
    name = path.rpartition("/")[2]
    app.add_api_route(
        path,
        answer,
        methods=["POST"],
        name=name,
        description=form.__doc__,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )


async def _answered(request: Request, form: type[Asked], questions: _Questions) -> Response:
    serving: Serving = request.app.state.serving
    try:
        async with asyncio.timeout(serving.timeout_s):
            asked = form.model_validate_json(await form_as_json(request))
            question, item = await run_in_threadpool(_question, serving, asked, questions)
            answer: Answer = await asyncio.wrap_future(serving.batches.ask(question, item))
            if asked.answer == "picture":
                return Response(await run_in_threadpool(_png, answer), media_type="image/png")
            return Response(await run_in_threadpool(_json, answer), media_type="application/json")
    except TimeoutError:
        return refused(504, f"no answer within {serving.timeout_s:g} s; ask for less, or later")
    except QueueFullError as error:
        return refused(503, "the queue is full; ask again later", {"Retry-After": str(error.retry_after_s)})
    except (StoppedError, CancelledError):
        return refused(503, "the server stops", {"Retry-After": "10"})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()[:5]]
        return refused(422, "; ".join(faults))
    except TooLargeError as error:
        return refused(413, one_line(error))
    except DeixisError as error:
        return refused(422, one_line(error))


def _question(serving: Serving, asked: Asked, questions: _Questions) -> tuple[Question, Item]:
    pixels = pixels_of(asked.image, max_pixels=serving.max_pixels, allowed_hosts=serving.url_hosts)
    return questions(asked, serving.models, Item(pixels))


def _png(answer: Answer) -> bytes:
    file = BytesIO()
    answer.draw().save(file, "PNG", compress_level=1)
    return file.getvalue()


def _json(answer: Answer) -> bytes:
    return json.dumps(answer.values, ensure_ascii=False, allow_nan=False).encode()


def _detect(asked: AskedDetect, models: Models, item: Item) -> tuple[Question, Item]:
    name = models.name("detector", asked.model)
    texts = tuple(dict.fromkeys(asked.names))
    question = Question("detect", name, texts=texts, threshold=asked.threshold, max_objects=asked.max_detections)
    return question, item


def _segment(asked: AskedSegment, models: Models, item: Item) -> tuple[Question, Item]:
    name, texts = models.name("segmenter", asked.model), tuple(asked.phrases)
    if not asked.boxes:
        if not texts:
            raise OptionError("phrases: got none, and no boxes; give one of them")
        return Question("segment", name, texts=texts), item
    boxes = np.array(asked.boxes, np.float64)
    if texts and len(texts) != len(boxes):
        raise OptionError(f"phrases: got {len(texts)} for {len(boxes)} boxes; give one for each box, or none")
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise OptionError("boxes: expected corners [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    height, width = item.pixels.shape[:2]
    if (boxes[:, :2] >= [width, height]).any() or (boxes[:, 2:] <= 0).any():
        raise OptionError(f"boxes: one lies outside of the image of {width}x{height} pixels")
    return Question("boxes", name, texts=texts), Item(item.pixels, boxes)


def _describe(asked: AskedDescribe, models: Models, item: Item) -> tuple[Question, Item]:
    masks = mask_rles(asked.masks, (item.pixels.shape[0], item.pixels.shape[1]))
    return Question("describe", models.name("segmenter", asked.model)), Item(item.pixels, masks=masks)


def _annotate(asked: AskedAnnotate, models: Models, item: Item) -> tuple[Question, Item]:
    name = models.name("segmenter", asked.model)
    detector = models.name("detector", asked.detector) if asked.names else ""
    texts = tuple(dict.fromkeys(asked.names))
    question = Question("annotate", name, detector, texts, threshold=asked.threshold, max_objects=asked.max_objects)
    return question, item


ROUTES: tuple[tuple[str, type[Asked], _Questions], ...] = (
    ("/v1/detect", AskedDetect, _detect),
    ("/v1/segment", AskedSegment, _segment),
    ("/v1/describe", AskedDescribe, _describe),
    ("/v1/annotate", AskedAnnotate, _annotate),
)


async def list_models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The served models by name; the first of each kind is the default."""
    models: Models = request.app.state.serving.models
    return {
        "detectors": [{"name": name, "names": list(one.names)} for name, one in models.detectors.items()],
        "segmenters": [{"name": name} for name in models.segmenters],
    }


async def show_metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    serving: Serving = request.app.state.serving
    return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


async def ready(request: Request) -> Response:
    """Whether the models are warm and requests are taken."""
    return Response("ready") if request.app.state.ready else refused(503, "not ready", {"Retry-After": "1"})
