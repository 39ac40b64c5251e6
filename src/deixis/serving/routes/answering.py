"""What all routes share: what the server has, and how a request's form becomes an answer or one line of error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from deixis.errors import DeixisError
from deixis.serving.batches import Batches, QueueFullError, StoppedError
from deixis.serving.budget import Budget
from deixis.serving.door import refused
from deixis.serving.films import FilmLimits
from deixis.serving.images import TooLargeError, form_as_json
from deixis.serving.jobs.queue import Jobs, NoJobError
from deixis.serving.metrics import Metrics
from deixis.serving.models import Models
from deixis.text import one_line

CLIENT_LEFT = 499
"""nginx's status, for the counters: nobody reads the answer."""
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Serving:
    """What the routes share.

    Attributes:
        pixels: that images of open requests may have together.
        timeout_s: seconds in which a request is answered, or given up.
        max_pixels: of an image.
        url_hosts: from which images are fetched.
        films: limits of a film in a request; one of a job may have any number of frames.
    """

    models: Models
    batches: Batches
    metrics: Metrics
    jobs: Jobs
    pixels: Budget
    timeout_s: float = 60.0
    max_pixels: int = 50_000_000
    url_hosts: Sequence[str] = ()
    films: FilmLimits = field(default_factory=FilmLimits)


def serving_of(request: Request) -> Serving:
    """What the server has."""
    serving: Serving = request.app.state.serving
    return serving


def add_form_route(
    app: FastAPI, path: str, form: type[Form], answer: Callable[[Serving, Form], Awaitable[Response]]
) -> None:
    """A route whose body is a form, as JSON or multipart; what is wrong with it is answered as one line."""

    async def endpoint(request: Request) -> Response:
        serving = serving_of(request)

        async def asked() -> Response:
            form_asked = form.model_validate_json(await form_as_json(request))
            return await _unless_left(request, answer(serving, form_asked))

        return await answered(asked, serving.timeout_s)

    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    content = {kind: {"schema": schema} for kind in ("application/json", "multipart/form-data")}
    app.state.schemas.update(parts)
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        name=path.rpartition("/")[2],
        description=form.__doc__,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )


async def _unless_left(request: Request, answer: Awaitable[Response]) -> Response:
    """An answer, given up where its client leaves before it is there: others are waiting."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(left())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else refused(CLIENT_LEFT, "the client went away")
    finally:
        answering.cancel()
        leaving.cancel()


async def answered(answer: Callable[[], Awaitable[Response]], timeout_s: float) -> Response:
    """What a function answers in time, or why it does not."""
    try:
        async with asyncio.timeout(timeout_s):
            return await answer()
    except TimeoutError:
        return refused(504, f"no answer within {timeout_s:g} s; ask for less, or later")
    except QueueFullError as error:
        return refused(503, f"{error}; ask again later", {"Retry-After": str(error.retry_after_s)})
    except (StoppedError, CancelledError):
        return refused(503, "the server stops", {"Retry-After": "10"})
    except ValidationError as error:
        return refused(422, faults_of(error))
    except NoJobError as error:
        return refused(404, one_line(error))
    except TooLargeError as error:
        return refused(413, one_line(error))
    except DeixisError as error:
        return refused(422, one_line(error))


def faults_of(error: ValidationError) -> str:
    """The first faults of a form, on one line."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:5]
    lines = (f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in faults)
    return " ".join("; ".join(lines).split())


def json_response(values: Any) -> Response:
    """Plain values as JSON; `nosniff`, so that no browser takes a name in it for a page."""
    content = json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(content, media_type="application/json", headers={"X-Content-Type-Options": "nosniff"})
