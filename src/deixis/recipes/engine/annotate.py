"""`deixis annotate --engine ray`: the same lines from many workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deixis.data.detect.wordings import Wordings
from deixis.inference.annotator import Annotator
from deixis.inference.detect.detector import load_detector
from deixis.inference.outputs.annotations import annotation_entry, failed_entry, image_key
from deixis.inference.outputs.cycle import CycleLines
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.annotate import AnnotateOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.items import Item
from deixis.recipes.engine.parts import Answer
from deixis.recipes.engine.ray_run import Work, each_answer, ray_answers


def load_models(options: AnnotateOptions, asked: Wordings, device: str | torch.device) -> Annotator:
    """Both models, or the segmenter alone where nothing is asked for by name."""
    return Annotator(
        load_detector(
            options.detector,
            device,
            wordings=asked,
            nms=options.nms,
            across_classes=options.nms_across_classes,
            sinks=options.sinks,
        )
        if asked
        else None,
        load_segmenter(options.segmenter, device, options.max_tiles),
        options.threshold,
        min_fit=options.min_fit,
        points=options.points,
        min_predicted_iou=options.min_predicted_iou,
        max_overlap=options.max_overlap,
        max_objects=options.max_objects,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )


def pictures_by_key(items: Sequence[Item], output: Path) -> dict[str, Any]:
    """Each picture by its name in the outputs."""
    return {item.name if item.path is None else image_key(item.path, output): item.picture() for item in items}


def add_ray_lines(
    options: AnnotateOptions,
    asked: Wordings,
    lines: CycleLines,
    *,
    keys: Sequence[str],
    items: Sequence[Item],
    done: set[str],
) -> None:
    """The lines of images that are not done, in order.

    Raises:
        DeixisError: see `ray_answers`.
    """
    answers = ray_answers(
        partial(annotating, options, asked),
        items,
        options.group(Engine),
        output=options.output,
        made_by=lines.made_by,
        model=options.segmenter,
        batch_size=options.batch_size,
    )
    for number, (key, answer) in enumerate(zip(keys, answers, strict=True), start=1):
        if key in done:
            continue
        if answer.content is None:
            lines.append(failed_entry(key, number, answer.error or ""))
        else:
            # A worker knows neither the image's name in the outputs nor its number.
            lines.append({**answer.content, "image": key, "id": number})


def annotating(options: AnnotateOptions, asked: Wordings, device: str) -> Work:
    """What a worker of a cluster does."""
    annotator = load_models(options, asked, device)

    def compute(items: Sequence[Item]) -> list[Answer]:
        found = [annotator.annotate_one(item.picture(), options.names) for item in items]
        return [Answer(annotation_entry("", 0, one)) for one in found]

    def work(items: Sequence[Item], batch_size: int) -> list[Answer]:
        annotator.batch_size = batch_size
        return [answer for item in items for answer in each_answer(compute, [item])]

    return work
