"""One model of a run that was repeated with several seeds: the average of their weights, or the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import DetectorBundle, load_any_detector
from deixis.models.interpolation import interpolate
from deixis.options.annotated_data import ClassTools
from deixis.options.detect_train import DetectData, DetectTrainOptions
from deixis.options.yaml_files import plain_values
from deixis.recipes.detect.data.sources import read_training_data
from deixis.recipes.detect.measure import DetectorMeasure
from deixis.recipes.detect.model import save_trained
from deixis.recipes.detect.policy import resolve
from deixis.recipes.detect.report import copy_weights
from deixis.recipes.detect.train import FinetuneResult, measure_of
from deixis.recipes.run.result import keep_result
from deixis.reporting.outcome import Measured, Outcome
from deixis.training.processes import make_accelerator


def keep_of_seeds(options: DetectTrainOptions, folder: Path, runs: Mapping[int, FinetuneResult]) -> str:
    """Write the average of all runs' weights (model soups, arXiv 2203.05482) into `teachers` of their folder, or the
    best run's where that is better on validation data; without validation data, the average. A line that says which.

    Every process measures, the first one writes.

    Raises:
        DeixisError: the data cannot be read, or the folder cannot be written.
    """
    outcomes = {seed: run.outcome for seed, run in runs.items() if run.outcome is not None}
    folders = {seed: run.teacher for seed, run in runs.items() if run.teacher is not None}
    best = max(outcomes, key=lambda seed: outcomes[seed].best.validation["AP"])
    accelerator = make_accelerator(options.precision, cpu=options.gpus == 0)
    measure = measure_of(options, accelerator)
    average, outcome, images = measured_average(options, list(folders.values()), measure, like=outcomes[best])
    of_average, of_best = (one.best.validation["AP"] for one in (outcome, outcomes[best]))
    takes_average = options.without_validation or of_average >= of_best
    teacher = folder / "teachers" / ("grounding_dino" if takes_average else folders[best].name)
    if accelerator.is_main_process and takes_average:
        save_trained(average, teacher, average.record.names)
        config = plain_values(resolve(options, images))
        keep_result(folder, teacher, outcome, options.calibrate, config=config, images=images)
    elif accelerator.is_main_process:
        copy_weights(folders[best], teacher)
    accelerator.wait_for_everyone()
    what = f"the average of {len(runs)} seeds" if takes_average else f"seed {best}"
    return f"kept    {what} (AP of the average {of_average:.4f}, of the best seed, {best}, {of_best:.4f}): {teacher}"


def measured_average(
    options: DetectTrainOptions, folders: Sequence[Path], measure: DetectorMeasure, *, like: Outcome
) -> tuple[DetectorBundle, Outcome, int]:
    """(the average, what it comes to, the number of training images).

    Args:
        like: of one of the runs, for the figures before training.
    """
    bundle = average_of([load_any_detector(path) for path in folders])
    if options.image_size is not None:
        bundle = replace(bundle, image_size=options.image_size)
    data = read_training_data(options.group(DetectData), options.group(ClassTools))
    detector = Detector(bundle, measure.accelerator.device)
    test = {} if data.test is None else measure(detector, data.test).as_dict()
    found = Measured(like.best.epoch, measure(detector, data.validation).as_dict(), test)
    return bundle, replace(like, best=found, last=found), len(data.training)


def average_of(bundles: Sequence[DetectorBundle]) -> DetectorBundle:
    """A detector with the mean of several detectors' weights."""
    average = bundles[0]
    for count, bundle in enumerate(bundles[1:], start=2):
        # A running mean: the n-th model moves it by 1/n of the way.
        average = interpolate(average, bundle, 1 / count)
    return replace(average, sinks=None)
