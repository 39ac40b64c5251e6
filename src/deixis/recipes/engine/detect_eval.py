"""`deixis detect eval --engine ray`: the same detections from many workers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from deixis.data.detect.wordings import Wordings
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.cocos_form import MAX_DETECTIONS_FEDERATED
from deixis.inference.detect.detector import load_detector, measured_detections
from deixis.inference.outputs.detection_lines import detection_content, detections_of
from deixis.options.checks import wanted_precision
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.items import Item, dataset_items
from deixis.recipes.engine.parts import Answer
from deixis.recipes.engine.ray_run import Work, all_contents, each_answer, ray_answers
from deixis.records import Dataset
from deixis.results.detections import Detections

SETTINGS = ("prompt_names", "slice", "overlap", "nms", "nms_across_classes", "sinks", "calibrate", "max_detections")


def measure_on_ray(
    options: DetectEvalOptions, dataset: Dataset, wordings: Wordings, weights: str
) -> tuple[DetectionMetrics, list[Detections]]:
    """Metrics and detections as the local engine gives them.

    Args:
        weights: the digest of the model's.

    Raises:
        DataError: an image cannot be read; errors.parquet of --output has all of them.
    """
    count = len(dataset) if options.max_images is None else min(len(dataset), options.max_images)
    settings = {name: getattr(options, name) for name in SETTINGS}
    with nullcontext(options.output) if options.output is not None else TemporaryDirectory() as output:
        answers = ray_answers(
            partial(evaluating, options, dataset, wordings),
            dataset_items(options.data, count),
            options.group(Engine),
            output=Path(output),
            made_by={
                "weights": weights,
                "names": dataset.vocabulary.names,
                "wordings": {name: list(words) for name, words in wordings.items()},
                **settings,
            },
            model=options.model,
            batch_size=options.batch_size,
            together=options.batch_size,
        )
        contents = all_contents(answers)
    pairs = []
    for index, content in enumerate(contents):
        truth = dataset[index]  # of files the annotations alone: nothing is decoded
        found = detections_of(content, truth.vocabulary.names)
        pairs.append((truth.evolve(image=Path()), replace(found, image_id=truth.image_id)))
    precision = wanted_precision(options.threshold_for)
    return measured_detections(pairs, dataset.vocabulary, options.max_detections, precision)


def evaluating(options: DetectEvalOptions, dataset: Dataset, wordings: Wordings, device: str) -> Work:
    """What a worker of a cluster does."""
    detector = load_detector(options.model, device, options.prompt_names, wordings=wordings, **options.boxes)
    if options.calibrate:
        detector.calibration = {}
    most = options.max_detections or MAX_DETECTIONS_FEDERATED  # whether LVIS's limit applies is known at the end

    def work(items: Sequence[Item], batch_size: int) -> list[Answer]:
        def compute(some: Sequence[Item]) -> list[Answer]:
            found = detector.predict_dataset(dataset, batch_size, most, indices=[item.row for item in some])
            return [Answer(detection_content(one)) for one in found]

        return each_answer(compute, items)

    return work
