"""`deixis detect predict --engine ray`: the same results from many workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.detect.wordings import Wordings
from deixis.errors import DataError
from deixis.inference.detect.detector import load_detector
from deixis.inference.images import Picture
from deixis.inference.outputs.detection_lines import detection_content, detections_of
from deixis.inference.outputs.detections import jpeg, picture_names, write_predictions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.items import Item
from deixis.recipes.engine.parts import Answer
from deixis.recipes.engine.ray_run import Work, ray_answers
from deixis.recipes.run.outputs import warn
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections
from deixis.text import one_line


def predict_on_ray(
    options: DetectPredictOptions, asked: Wordings, items: Sequence[Item], made_by: Mapping[str, Any]
) -> list[Detections]:
    """As the local engine: pictures, predictions.json and coco_results.json, beside rows/ and errors.parquet.

    Raises:
        DataError: no image can be read.
    """
    names = picture_names([item.name for item in items])

    def keep(index: int, answer: Answer) -> None:
        if answer.drawn is not None:
            write_atomic(options.output / "pictures" / names[index], answer.drawn)

    answers = ray_answers(
        partial(detecting, options, asked),
        items,
        options.group(Engine),
        output=options.output,
        made_by={**made_by, "pictures": options.pictures},
        model=options.model,
        batch_size=options.batch_size,
        together=options.batch_size,
        keep=keep,
    )
    found: list[Detections] = []
    paths, unreadable = [], []
    for item, answer in zip(items, answers, strict=True):
        if answer.content is None:
            unreadable.append(answer.error)
            warn(f"left out: {answer.error}")
            continue
        one = detections_of(answer.content, tuple(asked))
        found.append(replace(one, image_id=len(found), image=item.picture()))
        paths.append(item.name)
    if not found:
        raise DataError(f"none of {len(items)} images can be read; the first: {unreadable[0]}")
    write_predictions(options.output, found, paths, model=options.model)
    objects = sum(map(len, found))
    Console(highlight=False).print(f"{objects} objects in {len(found)} pictures; see {options.output}", markup=False)
    return found


def detecting(options: DetectPredictOptions, asked: Wordings, device: str) -> Work:
    """What a worker of a cluster does."""
    detector = load_detector(options.model, device, options.prompt_names, wordings=asked, **options.boxes)

    def work(items: Sequence[Item], batch_size: int) -> list[Answer]:
        pictures = [item.picture() for item in items]
        answers: dict[int, Answer] = {}

        def failed(picture: Picture, error: DataError) -> None:
            answers[id(picture)] = Answer(None, one_line(error))

        for one in detector.stream(
            pictures,
            list(asked),
            options.threshold,
            max_detections=options.max_detections,
            batch_size=batch_size,
            unreadable=failed,
        ):
            drawn = jpeg(draw_detections(one.pixels(), one)) if options.pictures else None
            answers[id(one.image)] = Answer(detection_content(one), drawn=drawn)
        return [answers[id(picture)] for picture in pictures]

    return work
