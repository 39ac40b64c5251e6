"""Routes about one image: requests to questions, questions to the queue, answers to JSON or a picture."""

from __future__ import annotations

import asyncio
from io import BytesIO

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from deixis.serving.answers import Answer, Item, Question
from deixis.serving.budget import Take
from deixis.serving.images import pixels_of
from deixis.serving.requests import Asked
from deixis.serving.routes.answering import Serving, add_form_route, json_response
from deixis.serving.tasks import TASKS, Ask


def add_picture_routes(app: FastAPI) -> None:
    """`/v1/detect`, `/v1/segment`, `/v1/describe` and `/v1/annotate`."""
    for task, (form, ask) in TASKS.items():
        _add(app, task, form, ask)


def _add(app: FastAPI, task: str, form: type[Asked], ask: Ask) -> None:
    async def answer(serving: Serving, asked: Asked) -> Response:
        with serving.pixels.hold() as take:
            question, item = await run_in_threadpool(_question, serving, asked, ask, take)
            found: Answer = await asyncio.wrap_future(serving.batches.ask(question, item))
            if asked.answer == "picture":
                return Response(await run_in_threadpool(_png, found), media_type="image/png")
            return await run_in_threadpool(json_response, found.values)

    add_form_route(app, f"/v1/{task}", form, answer)


def _question(serving: Serving, asked: Asked, ask: Ask, take: Take) -> tuple[Question, Item]:
    pixels = pixels_of(asked.image, max_pixels=serving.max_pixels, allowed_hosts=serving.url_hosts, take=take)
    return ask(asked, serving.models, Item(pixels))


def _png(answer: Answer) -> bytes:
    file = BytesIO()
    answer.draw().save(file, "PNG", compress_level=1)
    return file.getvalue()
