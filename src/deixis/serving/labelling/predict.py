"""Predictions for Label Studio: of whole tasks, and of what a user has just clicked on, through the server's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi.concurrency import run_in_threadpool

from deixis.errors import DataError
from deixis.serving.answers import Answer, Item, Question
from deixis.serving.budget import Take
from deixis.serving.images import checked_pixels
from deixis.serving.labelling.label_config import DRAWN, Control, LabelConfig
from deixis.serving.labelling.regions import clicks_of, region_of
from deixis.serving.labelling.task_images import LabelStudio, image_content
from deixis.serving.requests import AskedSegment
from deixis.serving.routes.answering import Serving
from deixis.serving.tasks import TASKS

MASKS = ("brushlabels", "polygonlabels", "rectanglelabels")
"""What an answer to clicks is drawn with, in this order."""
_MAX_OBJECTS = 100


async def predictions(
    serving: Serving, studio: LabelStudio, config: LabelConfig, tasks: Sequence[dict[str, Any]], clicked: Sequence[Any]
) -> list[dict[str, Any]]:
    """One prediction for each task, in order.

    Args:
        clicked: regions that a user has drawn in the only task and wants an object for; else empty.

    Raises:
        DeixisError: an image cannot be read, or no model is served that could answer.
    """
    headers = await run_in_threadpool(studio.headers)

    async def predicted(task: dict[str, Any]) -> dict[str, Any]:
        with serving.pixels.hold() as take:
            item = await run_in_threadpool(_item, serving, studio, config, task, headers=headers, take=take)
            regions = await (_of_clicks(serving, config, item, clicked) if clicked else _of_task(serving, config, item))
        scores = [region["score"] for region in regions]
        mean = sum(scores) / len(scores) if scores else 0.0
        return {"model_version": model_version(serving), "score": round(mean, 5), "result": regions}

    found: list[dict[str, Any]] = []
    for start in range(0, len(tasks), serving.batches.max_batch):  # no more images in memory than make a batch
        found += await asyncio.gather(*(predicted(task) for task in tasks[start : start + serving.batches.max_batch]))
    return found


def model_version(serving: Serving) -> str:
    """The names of the models that predictions come from."""
    models = serving.models
    return "+".join(next(iter(kind)) for kind in (models.detectors, models.segmenters) if kind)


def _item(
    serving: Serving,
    studio: LabelStudio,
    config: LabelConfig,
    task: dict[str, Any],
    *,
    headers: dict[str, str],
    take: Take,
) -> Item:
    data = task.get("data")
    value = data.get(config.key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise DataError(f"tasks: task {str(task.get('id'))[:20]} has no {config.key[:100]!r}, which is its image")
    content = image_content(value, studio, headers, serving.url_hosts)
    return Item(checked_pixels("image", content, serving.max_pixels, take))


async def _of_task(serving: Serving, config: LabelConfig, item: Item) -> list[dict[str, Any]]:
    """What the models find of the labels of the control that is drawn with."""
    control = config.drawn(DRAWN)
    if control is None or not control.labels:
        return []
    if not serving.models.detectors:
        return await _by_phrase(serving, control, item)
    name = serving.models.name("detector", "")
    question = Question(
        "detect", name, texts=tuple(control.labels), threshold=control.threshold, max_objects=_MAX_OBJECTS
    )
    found = (await _answer(serving, question, item)).values["objects"]
    if control.kind != "rectanglelabels" and found:
        boxes = np.array([one["box_xyxy_px"] for one in found], np.float64)
        segmenter = serving.models.name("segmenter", "")
        asked = Question("boxes", segmenter, texts=tuple(one["label"] for one in found))
        masks = (await _answer(serving, asked, Item(item.pixels, boxes))).values["objects"]
        found = [{**one, "mask": mask["mask"]} for one, mask in zip(found, masks, strict=True)]
    return await run_in_threadpool(_regions, control, item, [(one["label"], one["score"], one) for one in found])


async def _by_phrase(serving: Serving, control: Control, item: Item) -> list[dict[str, Any]]:
    """Without a detector each label is one mask, of all that it names."""
    question = Question("segment", serving.models.name("segmenter", ""), texts=tuple(control.labels))
    found = (await _answer(serving, question, item)).values["objects"]
    return await run_in_threadpool(_regions, control, item, [(one["phrase"], one["score"], one) for one in found])


async def _of_clicks(serving: Serving, config: LabelConfig, item: Item, clicked: Sequence[Any]) -> list[dict[str, Any]]:
    """The object that a user's points and boxes mean, drawn with the first of `MASKS` that the project has."""
    size_hw = (item.pixels.shape[0], item.pixels.shape[1])
    points, boxes, label = clicks_of(clicked, size_hw)
    control = config.drawn(MASKS, label)
    if control is None:
        return []
    # The form only checks the clicks; the image is in the item. Of several boxes the latest goes with the points.
    form = AskedSegment.model_validate({"image": "-", "points": points, "boxes": boxes[-1:] if points else boxes})
    question, asked = TASKS["segment"][1](form, serving.models, item)
    found = (await _answer(serving, question, asked)).values["objects"]
    return await run_in_threadpool(_regions, control, item, [(label, one["score"], one) for one in found], named=True)


async def _answer(serving: Serving, question: Question, item: Item) -> Answer:
    answer: Answer = await asyncio.wrap_future(serving.batches.ask(question, item))
    return answer


def _regions(
    control: Control, item: Item, found: Sequence[tuple[str, float, dict[str, Any]]], named: bool = False
) -> list[dict[str, Any]]:
    size_hw = (item.pixels.shape[0], item.pixels.shape[1])
    regions = [
        region_of(control, name if named else control.labels[name], one, size_hw, score) for name, score, one in found
    ]
    return [region for region in regions if region is not None]
