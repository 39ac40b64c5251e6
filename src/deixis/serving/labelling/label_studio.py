"""Label Studio's protocol of ML backends below `/label-studio`: add that address to a project as its model.

Requests of the protocol that ask for training are acknowledged and change nothing.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from deixis.serving.labelling.label_config import read_label_config
from deixis.serving.labelling.predict import model_version, predictions
from deixis.serving.labelling.task_images import LabelStudio
from deixis.serving.routes.answering import Serving, add_form_route, json_response, serving_of

PREFIX = "/label-studio"


class AskedPredict(BaseModel):
    """Predictions for tasks of Label Studio; `params.context.result` has what a user has just clicked."""

    model_config = ConfigDict(extra="ignore")
    tasks: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    label_config: str
    params: dict[str, Any] | None = None


class AskedSetup(BaseModel):
    """A project of Label Studio says what it is labelled with. Its address is not believed: see `--label-studio`."""

    model_config = ConfigDict(extra="ignore")
    project: str | int | None = None
    label_config: str | None = Field(None, alias="schema")


class AskedWebhook(BaseModel):
    """Something happened in Label Studio."""

    model_config = ConfigDict(extra="ignore")
    action: str = ""


def add_label_studio(app: FastAPI, studio: LabelStudio) -> None:
    """`/setup`, `/predict`, `/webhook`, `/train`, `/versions` and `/health` below `/label-studio`."""

    async def predict(serving: Serving, asked: AskedPredict) -> Response:
        context = (asked.params or {}).get("context")
        clicked = context.get("result") if isinstance(context, dict) else None
        clicked = clicked if isinstance(clicked, list) and len(asked.tasks) == 1 else []
        config = read_label_config(asked.label_config)
        results = await predictions(serving, studio, config, asked.tasks, clicked)
        return json_response({"results": results, "model_version": model_version(serving)})

    async def setup(serving: Serving, asked: AskedSetup) -> Response:
        if asked.label_config:
            read_label_config(asked.label_config)
        return json_response({"model_version": model_version(serving)})

    async def webhook(serving: Serving, asked: AskedWebhook) -> Response:
        return json_response({"status": "ok", "result": "nothing is trained here"})

    add_form_route(app, f"{PREFIX}/predict", AskedPredict, predict)
    add_form_route(app, f"{PREFIX}/setup", AskedSetup, setup)
    add_form_route(app, f"{PREFIX}/webhook", AskedWebhook, webhook)
    add_form_route(app, f"{PREFIX}/train", AskedWebhook, webhook)
    for path in (PREFIX, f"{PREFIX}/", f"{PREFIX}/health"):
        app.add_api_route(path, health, methods=["GET"], response_model=None, include_in_schema=path.endswith("health"))
    app.add_api_route(f"{PREFIX}/versions", versions, methods=["GET"], response_model=None)


async def health(request: Request) -> Response:
    """Whether predictions are made."""
    return json_response({"status": "UP", "model_class": "deixis"})


async def versions(request: Request) -> Response:
    """The only version of the models."""
    return json_response({"versions": [model_version(serving_of(request))]})
