"""Measure a detector on annotated data."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.checks.limits import ModelLimits
from deixis.data.detect.wordings import wordings_of_classes
from deixis.data.formats import read_dataset
from deixis.data.sets.subset import Subset
from deixis.errors import OptionError
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector, Progress, load_detector
from deixis.inference.detect.sinks import SinkTrial
from deixis.inference.outputs.detections import coco_results
from deixis.models.builtin import BUILTIN, model_of_run
from deixis.models.model_record import RECORD_FILE, update_record
from deixis.options.annotated_data import ClassTools
from deixis.options.checks import A_DETECTOR, wanted_precision
from deixis.options.detect_eval import DetectEvalOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import chosen, used_names
from deixis.recipes.data.survey import report_findings
from deixis.recipes.detect.data.facts import warn_of_crowded_images
from deixis.recipes.detect.measure import choose_sinks
from deixis.recipes.detect.report import write_measured
from deixis.recipes.engine.cluster import require_cluster
from deixis.recipes.engine.detect_eval import measure_on_ray
from deixis.recipes.engine.parts import ERRORS, ROWS
from deixis.recipes.model.choice import warn_of_shapes
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import weights_digest
from deixis.recipes.run.owned_output import writes_output
from deixis.recipes.run.result import chosen_scores, keep_sinks
from deixis.records import Dataset
from deixis.results.detections import Detections

PAGE = "report.html"
HEADLINES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100", "FPR_bg", "AP_at_FPR_bg", "F1")
CHOSEN = ("threshold", "precision", "recall", "ECE", "ECE_calibrated")
NOT_MEASURED = dict.fromkeys(("FPR_bg", "AP_at_FPR_bg", "F1"), "every image shows every class")
MAX_CLASSES = 100  # printed; metrics.json has all


@writes_output("metrics.json", "coco_results.json", PAGE, ROWS, ERRORS)
def evaluate_detector(options: DetectEvalOptions) -> DetectionMetrics:
    """Print COCO metrics overall, by size and by class; write them and the detections where asked.

    Raises:
        DeixisError: options, data or model cannot be used.
    """
    on_ray = options.engine == "ray"
    if on_ray:
        require_cluster(options.address)
    device = choose_device("cpu" if on_ray else options.device)  # a cluster's workers have models of their own
    if options.update_model:
        model_to_update(options.model)
    console, tools = Console(highlight=False, soft_wrap=True), options.group(ClassTools)
    dataset = read_dataset(options.data, options.images, options.format, masks=False)
    used = used_names([dataset], tools)
    dataset = chosen(dataset, tools, used, partial(console.print, markup=False))
    wordings = wordings_of_classes(options.names, dataset.vocabulary.names, options.data)
    detector = load_detector(options.model, device, options.prompt_names, wordings=wordings, **options.boxes)
    warn_of_crowded_images(dataset, detector.bundle.model.queries, options.max_detections, options.max_images)
    warn_of_shapes(detector.bundle.record, options.model, f"--model {A_DETECTOR}", options.data)
    limits = ModelLimits(image_size=detector.bundle.image_size, whose=options.model)
    sets = [(options.data, options.images, dataset)]
    report_findings(console, sets, options.format, limits, tools=tools, used=used)
    # The new one is fitted to the scores as the model gives them, not to those of an earlier calibration.
    if options.calibrate:
        detector.calibration = {}
    trial = add_sinks(console, options, detector, dataset) if options.try_sinks else None
    if on_ray:
        metrics, detections = measure_on_ray(options, dataset, wordings, weights_digest(detector.bundle.model))
    else:
        with ProgressBar("images") as progress:
            metrics, detections = measure_once(options, detector, dataset, progress)
    print_metrics(metrics)
    if options.update_model:
        keep_scores(console, options, metrics)
        if trial is not None:
            keep_sinks(model_to_update(options.model), trial, detector.sinks, options.calibrate)
    if options.output is not None:
        write_atomic(options.output / "metrics.json", json.dumps(metrics.as_dict(), indent=2) + "\n")
        write_atomic(
            options.output / "coco_results.json", json.dumps(coco_results(detections, dataset.vocabulary)) + "\n"
        )
        title = f"{options.model} on {getattr(dataset, 'name', options.data)}"
        write_measured(options.output / PAGE, title, metrics, detections, dataset, headline_rows(metrics))
    return metrics


def add_sinks(console: Console, options: DetectEvalOptions, detector: Detector, dataset: Dataset) -> SinkTrial:
    """Try attention sinks; the detector has the best kind afterwards if they help, else none."""
    measured: Dataset = dataset
    if options.max_images is not None and options.max_images < len(dataset):
        measured = Subset(dataset, tuple(range(options.max_images)), options.data)

    def measure(one: Detector, images: Dataset) -> DetectionMetrics:
        return measure_once(options, one, images)[0]

    trial, sinks = choose_sinks(detector, measured, options.try_sinks, measure=measure)
    detector.use_sinks(sinks)
    for line in trial.lines():
        console.print(line, markup=False)
    return trial


def measure_once(
    options: DetectEvalOptions, detector: Detector, dataset: Dataset, progress: Progress | None = None
) -> tuple[DetectionMetrics, list[Detections]]:
    """Metrics and detections as the options ask for them."""
    return detector.evaluate(
        dataset,
        options.batch_size,
        options.max_images,
        progress=progress,
        max_detections=options.max_detections,
        wanted_precision=wanted_precision(options.threshold_for),
    )


def model_to_update(model: str) -> Path:
    """The folder of a model of the user's own.

    Raises:
        OptionError: it has none.
    """
    folder = Path(model_of_run(model))
    if model == BUILTIN or not folder.is_dir():
        raise OptionError(f"--update-model: {model} is no folder; only a model of your own can be updated")
    return folder


def keep_scores(console: Console, options: DetectEvalOptions, metrics: DetectionMetrics) -> None:
    """Write the thresholds, and a calibration where asked, into the record of the model's folder.

    Raises:
        ModelError: the record cannot be written.
    """
    folder, kept = model_to_update(options.model), chosen_scores(metrics.as_dict(), options.calibrate)
    update_record(folder, **kept)
    console.print(f"updated {folder / RECORD_FILE}: {json.dumps(kept)}", markup=False)


def headline_rows(metrics: DetectionMetrics) -> list[tuple[str, str]]:
    """(metric, value in percent) of the metrics that are always shown; why it is missing where it was not measured."""
    values, rows = metrics.as_dict(), []
    for name in HEADLINES:
        shown = f"AR{metrics.max_detections}" if name == "AR100" else name
        rows.append(
            (shown, f"{100 * values[name]:.1f}" if name in values else NOT_MEASURED.get(name, "no such objects"))
        )
    for name in (name for name in CHOSEN if name in values):
        rows.append((name, f"{values[name]:.2f}" if name == "threshold" else f"{100 * values[name]:.1f}"))
    return rows


def print_metrics(metrics: DetectionMetrics) -> None:
    """A table of the headline metrics and one line per class; of very many classes, only the worst."""
    counted = f"at most {metrics.max_detections} detections per image"
    table = Table(title=f"{metrics.images} images, {metrics.boxes} objects, {counted}")
    table.add_column("metric")
    table.add_column("percent", justify="right")
    for row in headline_rows(metrics):
        table.add_row(*row)
    table.add_section()
    classes = list(metrics.per_class.items())
    if len(classes) > MAX_CLASSES:
        classes = sorted(classes, key=lambda item: item[1])[:MAX_CLASSES]
        table.add_row(f"worst {MAX_CLASSES} of {len(metrics.per_class)} classes", "")
    for name, value in classes:
        table.add_row(f"AP {name}", f"{100 * value:.1f}")
    Console(highlight=False).print(table)
