"""The result of a run as it is printed and kept: `result.json` in its folder, figures in the model's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.errors import OptionError
from deixis.models.model_card import write_card
from deixis.models.model_record import update_record
from deixis.reporting.outcome import Measured, Outcome

RESULT_FILE = "result.json"


@runtime_checkable
class SeedOptions(Protocol):
    """The options of a run that may be repeated."""

    @property
    def seeds(self) -> int: ...


def require_one_seed(options: SeedOptions) -> None:
    """Raises OptionError where a single run is asked to be several."""
    if options.seeds > 1:
        raise OptionError(f"--seeds: got {options.seeds} for a single run; call deixis.recipes.run.repeat.repeat_run")


def print_outcome(console: Console, outcome: Outcome, names: Sequence[str]) -> None:
    """Print before and after, the best and the last epoch, and what a reader of the figures must not miss."""
    for line in outcome.lines(names):
        console.print(line, markup=False)


def keep_result(folder: Path, teacher: Path, outcome: Outcome) -> None:
    """Write `result.json` into the run's folder, and the figures of the kept weights into the model's record.

    Raises:
        DataError, ModelError: they cannot be written.
    """
    figures = {
        name: _figures(outcome.best, values)
        for name, values in (("validation", outcome.best.validation), ("test", outcome.best.test))
        if values
    }
    update_record(teacher, metrics=figures)
    write_card(teacher)
    write_atomic(folder / RESULT_FILE, json.dumps(outcome.as_dict(), indent=2) + "\n")


def _figures(measured: Measured, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"epoch": measured.epoch} | {k: v for k, v in values.items() if isinstance(v, int | float)}
