"""The result of a run as it is printed and kept: `result.json` in its folder, figures in the model's record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deixis.atomic_files import write_atomic
from deixis.errors import OptionError
from deixis.evaluation.calibration import calibrated
from deixis.evaluation.thresholds import MIN_OBJECTS
from deixis.inference.detect.sinks import SinkTrial
from deixis.models.checkpoints import write_sinks
from deixis.models.hub.base_models import base_name, licence_of
from deixis.models.model_card import ON_TRAINING, write_card
from deixis.models.model_record import update_record
from deixis.reporting.outcome import Measured, Outcome

RESULT_FILE = "result.json"


def require_one_seed(seeds: int) -> None:
    """Raises OptionError where a single run is asked to be several."""
    if seeds > 1:
        raise OptionError(f"--seeds: got {seeds} for a single run; call deixis.recipes.run.repeat.repeat_run")


def keep_result(
    folder: Path,
    teacher: Path,
    outcome: Outcome,
    calibrate: bool = False,
    *,
    config: Mapping[str, Any] | None = None,
    images: int = 0,
) -> None:
    """Write `result.json` into the run's folder; figures and thresholds of the kept weights, what they were made from
    and on, into the model's record.

    Args:
        config: the run's options.
        images: number of training images.
        calibrate: the record gets the calibration of a detector's scores too.

    Raises:
        DataError, ModelError: they cannot be written.
    """
    # Without held-out data, "validation" was measured on the training images themselves.
    nothing_held_out = config is not None and not (config.get("hold_out", True) or config.get("val_data"))
    part = ON_TRAINING if nothing_held_out else "validation"
    update_record(
        teacher,
        metrics=_figures(outcome.best, part),
        metrics_before=_figures(outcome.before, part) if outcome.before else {},
        **({} if nothing_held_out else chosen_scores(outcome.best.validation, calibrate)),
        **(_origin(config, images) if config else {}),
    )
    write_card(teacher)
    write_atomic(folder / RESULT_FILE, json.dumps(outcome.as_dict(), indent=2) + "\n")


def chosen_scores(metrics: Mapping[str, Any], calibrate: bool) -> dict[str, Any]:
    """The fields of a model's record that metrics of validation data decide: thresholds, and a calibration.

    Thresholds are on the scale of the calibrated scores.
    """
    calibration = metrics.get("calibration", {}) if calibrate else {}
    enough = "threshold" in metrics and metrics["boxes"] >= MIN_OBJECTS  # a threshold chosen on few objects is chance
    own = {"score": metrics["threshold"]} if enough else {}
    scores, of_class = (
        dict(zip(values, calibrated(np.array([*values.values()], float), calibration).round(6).tolist(), strict=True))
        for values in (own, metrics.get("class_thresholds", {}))
    )
    return {"thresholds": scores, "class_thresholds": of_class, **({"calibration": calibration} if calibrate else {})}


def keep_sinks(folder: Path, trial: SinkTrial, sinks: Tensor | None, calibrate: bool = False) -> None:
    """Write what a trial of attention sinks chose, with the thresholds that it measured, into a model's folder.

    Raises:
        ModelError: the folder cannot be written.
    """
    write_sinks(folder, sinks)
    update_record(folder, sinks=trial.facts(), **chosen_scores(trial.chosen.as_dict(), calibrate))


def _figures(measured: Measured, part: str) -> dict[str, Any]:
    """Numbers by part of the data, then by name.

    Args:
        part: what the validation data is called.
    """
    parts = {part: measured.validation, "test": measured.test}
    return {
        part: {"epoch": measured.epoch} | {k: v for k, v in values.items() if isinstance(v, int | float)}
        for part, values in parts.items()
        if values
    }


def _origin(config: Mapping[str, Any], images: int) -> dict[str, Any]:
    """What weights were made from and on; of files their names alone, as models are published."""
    model, data = str(config["model"]), config["data"]
    sources = [data] if isinstance(data, str) else data
    names = [source if source.startswith("scenes:") else Path(source).name for source in map(str, sources)]
    training = {"images": images, "epochs": config["epochs"], "data": names}
    return {"base": base_name(model), "base_license": licence_of(model), "training": training}
