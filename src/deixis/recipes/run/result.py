"""The result of a run as it is printed and kept: `result.json` in its folder, figures in the model's record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.errors import OptionError
from deixis.evaluation.thresholds import LEAST_OBJECTS
from deixis.models.model_card import write_card
from deixis.models.model_record import update_record
from deixis.reporting.outcome import Measured, Outcome

RESULT_FILE = "result.json"


def require_one_seed(seeds: int) -> None:
    """Raises OptionError where a single run is asked to be several."""
    if seeds > 1:
        raise OptionError(f"--seeds: got {seeds} for a single run; call deixis.recipes.run.repeat.repeat_run")


def keep_result(folder: Path, teacher: Path, outcome: Outcome) -> None:
    """Write `result.json` into the run's folder; figures and thresholds of the kept weights into the model's record.

    Raises:
        DataError, ModelError: they cannot be written.
    """
    figures = {
        name: _figures(outcome.best, values)
        for name, values in (("validation", outcome.best.validation), ("test", outcome.best.test))
        if values
    }
    chosen = outcome.best.validation
    enough = "threshold" in chosen and chosen["boxes"] >= LEAST_OBJECTS
    scores = {"score": chosen["threshold"]} if enough else {}
    update_record(teacher, metrics=figures, thresholds=scores, class_thresholds=chosen.get("class_thresholds", {}))
    write_card(teacher)
    write_atomic(folder / RESULT_FILE, json.dumps(outcome.as_dict(), indent=2) + "\n")


def _figures(measured: Measured, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"epoch": measured.epoch} | {k: v for k, v in values.items() if isinstance(v, int | float)}
