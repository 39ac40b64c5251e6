"""What a run keeps in place of its best epoch's weights, so that old names stay: an edit of the base, or weights in
between."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import load_any_detector, trainable
from deixis.models.edits.closed_form import gathering, layer_task
from deixis.models.edits.files import Task, first_weights, write_edits
from deixis.models.interpolation import interpolate
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.measure import DetectorMeasure
from deixis.recipes.detect.model import save_trained, write_trained
from deixis.recipes.detect.plan import Plan
from deixis.recipes.run.ending import ChangeBest
from deixis.records import Dataset
from deixis.training.checkpoint import replacing_folder


def change_of(plan: Plan, detector: Detector, measure: DetectorMeasure) -> ChangeBest:
    """What makes the weights that are kept of the best epoch's, as --keep says, and measures them."""
    write = partial(_write_edited, plan) if plan.options.keep == "edit" else partial(_write_between, plan)

    def change(best: Path, kept: Path) -> Mapping[str, Any]:
        # One process writes, and all measure what it wrote.
        if measure.accelerator.is_main_process:
            write(best, kept, measure.accelerator.device)
        measure.accelerator.wait_for_everyone()
        return measure.of_folder(kept, detector, plan.data.validation)

    return change


def _write_edited(plan: Plan, best: Path, kept: Path, device: torch.device) -> None:
    base, tuned = load_any_detector(plan.options.model), load_any_detector(best)
    first = first_weights(base)
    task = task_of(Detector(tuned, device), first, plan.data.training)
    with replacing_folder(kept) as fresh:
        write_edits(tuned, fresh, first, {task_name(plan.options): task}, first_names=base.record.names)
        write_trained(tuned, fresh, task.names, name=kept.name)


def task_of(detector: Detector, first: Mapping[str, torch.Tensor], training: Dataset) -> Task:
    """The task of a tuned model, which sees its training pictures once for it."""
    with gathering(detector.bundle.model) as grams:
        detector.predict_dataset(training, batch_size=1)  # one at a time: padding would count as input
    tuned = first_weights(trainable(detector.bundle))
    layers = {name: layer_task(grams[name].cpu(), first[name], tuned[name]) for name in first}
    return Task(layers, training.vocabulary.names)


def task_name(options: DetectTrainOptions) -> str:
    """The name of a run's task: that of its folder."""
    return options.folder.resolve().name or "task"


def _write_between(plan: Plan, best: Path, kept: Path, device: torch.device) -> None:
    del device
    between = interpolate(load_any_detector(plan.options.model), load_any_detector(best), plan.options.keep_weight)
    save_trained(between, kept, plan.data.training.vocabulary.names)
