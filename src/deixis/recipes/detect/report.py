"""The end of a detector run: the best weights under their lasting name, and the report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.pixels.images import load
from deixis.data.sets.subset import Subset
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector, load_detector
from deixis.models.freezing import parameter_table
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.recipes.run.data import RunData
from deixis.recipes.run.report import run_facts, spread_indices
from deixis.recipes.run.training import OpenRun
from deixis.records import Dataset, Detections, Sample
from deixis.reporting.data import ForgettingFacts, dataset_facts
from deixis.reporting.detect_report import detections_row, detector_facts
from deixis.reporting.outcome import Outcome
from deixis.reporting.run_report import write_run_report
from deixis.training.checkpoint import replacing_folder

MOST_COUNTED = 50_000  # images of which a report counts boxes: what it keeps of each must not grow without end
POLICY = ("recipe", "epochs", "batch_size", "learning_rate", "backbone_lr_factor", "text_lr_factor", "schedule")


BeforePicture = tuple[int, Sample, Detections]
"""Of an image of the report: its position, its annotations, and what the untrained model finds in it."""


def before_pictures(detector: Detector, dataset: Dataset, count: int, batch_size: int) -> list[BeforePicture]:
    """Images spread evenly over the data that is reported on, detected by the model as it is."""
    if not count:
        return []
    chosen = spread_indices(count, len(dataset))
    found = detector.predict_dataset(dataset, batch_size, indices=chosen)
    return list(zip(chosen, (load(dataset[i]) for i in chosen), found, strict=True))


def metrics_of(values: Mapping[str, Any] | None) -> DetectionMetrics | None:
    """Logged metrics as a record; those left out are NaN."""
    if values is None:
        return None
    names = [field.name for field in fields(DetectionMetrics) if field.default is MISSING or field.name in values]
    return DetectionMetrics(**{name: values.get(name, math.nan) for name in names})


def write_detector_report(
    opened: OpenRun,
    bundle: GroundingDinoBundle,
    data: RunData[Dataset],
    pictures: list[BeforePicture],
    *,
    teacher: Path,
    outcome: Outcome,
    seconds: float,
    took: dict[str, str],
    forgetting: ForgettingFacts | None,
    batch_size: int,
    page: bool,
) -> None:
    """Copy the best weights to `teachers/` and write `report.html`.

    Args:
        seconds: from start to end.
        batch_size: of images that are drawn.
        page: whether to write the report.
        took: what else the run took, by name.
    """
    best = opened.folder / "checkpoints" / "best"
    with replacing_folder(teacher) as fresh:
        shutil.copytree(best, fresh, dirs_exist_ok=True)
    after = metrics_of(outcome.reported(outcome.best))
    if not page or after is None:
        return
    detector = load_detector(teacher, bundle.model.model.level_embed.device)
    indices = [index for index, *_ in pictures]
    found = detector.predict_dataset(data.reported, batch_size, indices=indices) if indices else []
    task = detector_facts(
        dataset_facts(shown(data.training)),
        dataset_facts(data.validation),
        None if data.test is None else dataset_facts(data.test),
        metrics_of(outcome.reported(outcome.before)),
        after,
        forgetting=forgetting,
        pictures=[
            detections_row(sample, first, last) for (_, sample, first), last in zip(pictures, found, strict=True)
        ],
    )
    run = run_facts(opened, POLICY, parameter_table(bundle.model), outcome, seconds=seconds, took=took)
    write_run_report(opened.folder / "report.html", run, task)


def shown(dataset: Dataset) -> Dataset:
    """What a report counts: all of a data set, or of a large one a part spread evenly over it."""
    if len(dataset) <= MOST_COUNTED:
        return dataset
    chosen = np.linspace(0, len(dataset) - 1, MOST_COUNTED).round().astype(int).tolist()
    name = f"{getattr(dataset, 'name', 'data')}, {MOST_COUNTED:,} of {len(dataset):,} images"
    return Subset(dataset, tuple(chosen), name)
