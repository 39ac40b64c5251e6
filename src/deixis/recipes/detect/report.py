"""The end of a detector run: the best weights under their lasting name, and what the report shows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import torch

from deixis.data.batching.epochs import EpochDataset
from deixis.data.pixels.images import load
from deixis.data.sets.embedded import record_of
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.evaluation.analysis import analyse
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector, load_detector
from deixis.options.checks import wanted_precision
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.data.sources import NOTHING_HELD_OUT
from deixis.recipes.run.data import RunData
from deixis.recipes.run.owned_output import require_own_file
from deixis.records import Dataset, Sample
from deixis.reporting.data import ForgettingFacts, dataset_facts
from deixis.reporting.dataset_page import write_augmented_page
from deixis.reporting.detect_report import METRICS_NOTE, detections_row, detector_facts
from deixis.reporting.explained import Explained, explain, looked_at
from deixis.reporting.outcome import Outcome
from deixis.reporting.page import Table, is_our_page, write_page
from deixis.reporting.run_report import TaskFacts
from deixis.results.detections import Detections
from deixis.text import listed
from deixis.training.checkpoint import replacing_folder
from deixis.training.validation import spread_evenly

MAX_EXPLAINED = 500  # images whose mistakes a report explains: they are looked at once more
MAX_COUNTED = 50_000  # images of which a report counts boxes: what it keeps of each must not grow without end
AUGMENTED_IMAGES, AUGMENTED_EPOCHS = 8, 3  # on a page of augmented images
POLICY = ("recipe", "epochs", "batch_size", "learning_rate", "backbone_lr_factor", "text_lr_factor", "schedule")


BeforePicture = tuple[int, Sample, Detections]
"""Of an image of the report: its position, its annotations, and what the untrained model finds in it."""


def before_pictures(detector: Detector, dataset: Dataset, count: int, batch_size: int) -> list[BeforePicture]:
    """Images spread evenly over the data that is reported on, detected by the model as it is."""
    if not count:
        return []
    chosen = spread_evenly(len(dataset), count)
    found = detector.predict_dataset(dataset, batch_size, indices=chosen)
    return list(zip(chosen, (load(dataset[i]) for i in chosen), found, strict=True))


def metrics_of(values: Mapping[str, Any] | None) -> DetectionMetrics | None:
    """Logged metrics as a record; those left out are NaN."""
    if values is None:
        return None
    names = [field.name for field in fields(DetectionMetrics) if field.default is MISSING or field.name in values]
    return DetectionMetrics(**{name: values.get(name, math.nan) for name in names})


def show_augmented(path: Path, shown: EpochDataset, preset: str) -> None:
    """Write a page of some training images, each as the first epochs show it.

    Raises:
        DataError: the place cannot be written, or is taken by something else.
    """
    require_own_file(path, is_our_page)
    items = []
    for index in spread_evenly(len(shown), AUGMENTED_IMAGES):
        with suppress(DataError):  # an unreadable image: training leaves it out, and says so
            drawn = [shown[epoch, index] for epoch in range(AUGMENTED_EPOCHS)]
            items += [(sample, listed(prompt.names, 6)) for sample, prompt in drawn]
    note = (
        f"Each row is one image in the first {AUGMENTED_EPOCHS} epochs, with --augment {preset}: what the model is "
        "shown, resized as it is then, and the boxes and names that it learns from."
    )
    write_augmented_page(path, items, AUGMENTED_EPOCHS, note)


def copy_weights(best: Path, teacher: Path) -> None:
    """Write the best weights as the teacher, all or nothing."""
    with replacing_folder(teacher) as fresh:
        shutil.copytree(best, fresh, dirs_exist_ok=True)


def report_facts(
    outcome: Outcome,
    teacher: Path,
    data: RunData[Dataset],
    pictures: list[BeforePicture],
    *,
    forgetting: ForgettingFacts | None,
    gain: Callable[[Outcome], Sequence[str]],
    batch_size: int,
    device: torch.device,
) -> TaskFacts:
    """What `report.html` shows of a detector: data, metrics, forgetting, pictures.

    Args:
        gain: of `gain_over`.
        batch_size: of images that are drawn.
    """
    after = metrics_of(outcome.reported(outcome.best))
    assert after is not None
    indices = [index for index, *_ in pictures]
    detector = load_detector(teacher, device)
    found = detector.predict_dataset(data.reported, batch_size, indices=indices) if indices else []
    validation = metrics_of(outcome.best.validation)
    assert validation is not None
    # Thresholds are those that validation data chose, for figures of test data too.
    thresholds = {"threshold": validation.threshold, "class_thresholds": validation.class_thresholds}
    chosen = replace(after, **thresholds)  # type: ignore[arg-type]
    facts = detector_facts(
        dataset_facts(shown(data.training)),
        dataset_facts(data.validation),
        None if data.test is None else dataset_facts(data.test),
        metrics_of(outcome.reported(outcome.before)),
        after,
        forgetting=forgetting,
        pictures=[
            detections_row(sample, first, last) for (_, sample, first), last in zip(pictures, found, strict=True)
        ],
        explained=explained(detector, data.reported, chosen, batch_size=batch_size, pictures=bool(pictures)),
    )
    trained_on = [f"Trained on corrections of people, {line}." for line in data.reviewed]
    return replace(facts, measured_on=" ".join([facts.measured_on, *trained_on, *gain(outcome)]))


def gain_over(name: str, other: float | None, outcome: Outcome) -> list[str]:
    """What a run has gained over another one, in a sentence; nothing without one.

    Args:
        other: AP of the other run's weights on the data that is reported on.
    """
    after = outcome.reported(outcome.best)
    if other is None or after is None:
        return []
    return [f"AP {after['AP']:.4f} beside {other:.4f} of {name} on the same images: {after['AP'] - other:+.4f}."]


def closing_lines(options: DetectTrainOptions, other: float | None, outcome: Outcome) -> list[str]:
    """What was gained over --compare-with; that figures say nothing of other images, or that no threshold has the
    wanted precision, where that is so."""
    gain = gain_over(options.compare_with, other, outcome)
    if options.without_validation:
        return [*gain, NOTHING_HELD_OUT]
    wanted, found = wanted_precision(options.threshold_for), outcome.best.validation
    if wanted is None or "threshold" in found:
        return gain
    return [*gain, f"no threshold: from no score on are {100 * wanted:g} % of the detections on validation data right"]


def explained(
    detector: Detector, dataset: Dataset, metrics: DetectionMetrics, *, batch_size: int, pictures: bool
) -> Explained:
    """Curves and mistakes of a detector on (a part of) the data that it is reported on.

    Args:
        metrics: with the thresholds that were chosen.
    """
    part = Subset(dataset, tuple(spread_evenly(len(dataset), MAX_EXPLAINED)), str(getattr(dataset, "name", "data")))
    looked: Dataset = part if len(part) < len(dataset) else dataset
    found = detector.predict_dataset(looked, batch_size, metrics.max_detections)
    truth = [record_of(looked, index) for index in range(len(looked))]
    analysis = analyse(truth, found, looked.vocabulary, metrics)
    return explain(analysis, looked, pictures=pictures, images=looked_at(len(looked), len(dataset)))


def write_measured(
    path: Path,
    title: str,
    metrics: DetectionMetrics,
    detections: Sequence[Detections],
    dataset: Dataset,
    rows: Sequence[tuple[str, str]],
) -> None:
    """The page that explains the figures of an evaluation, as a training run's report does.

    Args:
        detections: of the first images of the data set.
        rows: (metric, value) of its first table.

    Raises:
        DataError: an image cannot be read, or the place cannot be written.
    """
    truth = [record_of(dataset, index) for index in range(len(detections))]
    analysis = analyse(truth, detections, dataset.vocabulary, metrics)
    counted = f"at most {metrics.max_detections} detections per image count"
    write_page(
        path,
        "detect_eval",
        title=title,
        figures=Table(["Metric", "Percent"], [list(row) for row in rows], numbers=1),
        note=f"{metrics.images} images with {metrics.boxes} objects; {counted}. {METRICS_NOTE}",
        found=explain(analysis, dataset),
    )


def shown(dataset: Dataset) -> Dataset:
    """What a report counts: all of a data set, or of a large one a part spread evenly over it."""
    if len(dataset) <= MAX_COUNTED:
        return dataset
    name = f"{getattr(dataset, 'name', 'data')}, {MAX_COUNTED:,} of {len(dataset):,} images"
    return Subset(dataset, tuple(spread_evenly(len(dataset), MAX_COUNTED)), name)
