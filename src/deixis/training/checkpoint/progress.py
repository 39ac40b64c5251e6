"""The position of a run, and what must be unchanged for it to resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deixis.errors import TrainingError

LENGTHS = ("epochs", "max_steps", "stop_after_epochs", "early_stopping_patience")
"""Options that set the length of a run; they may be raised when it resumes."""


LEVEL_EPOCHS, MIN_FALL = 3, 0.01
"""A loss has stopped falling after this many epochs whose mean was not lower than the lowest by this share."""


@dataclass
class Progress:
    """The position of a run: everything that changes during it, except weights and optimiser.

    Attributes:
        epoch, step_in_epoch: the next step's position in the data.
        step: steps so far, including skipped ones.
        updates: steps that changed the weights; the learning rate is a function of it.
        skipped, skipped_in_a_row: steps skipped because of a non-finite loss or gradient.
        best_score, best_epoch: the best score on validation data so far (a detector's AP, a segmenter's gIoU) and its
            epoch; -1 before the first.
        loss_sum, losses: the sum of the losses of this epoch's steps, and their number; without skipped steps.
        lowest_loss: the lowest mean loss of an epoch, -1 before the first.
        level_epochs: epochs since then, which were less than 1 % below it.
        epochs_without_gain: evaluations since the best one, for early stopping.
        log_bytes: length of metrics.jsonl at this point.
        finished: whether the run is complete.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_score: float = -1.0
    best_epoch: int = -1
    loss_sum: float = 0.0
    losses: int = 0
    lowest_loss: float = -1.0
    level_epochs: int = 0
    epochs_without_gain: int = 0
    log_bytes: int = 0
    finished: bool = False

    def count_step(self, updated: bool, loss: float = 0.0) -> None:
        """Count a step that changed the weights (`updated`) or was skipped, whose loss does not count."""
        self.step += 1
        self.step_in_epoch += 1
        self.updates += updated
        self.skipped += not updated
        self.skipped_in_a_row = 0 if updated else self.skipped_in_a_row + 1
        if updated:
            self.loss_sum += loss
            self.losses += 1

    def end_epoch(self) -> bool:
        """Count an epoch, once; whether the loss has stopped falling for `LEVEL_EPOCHS` epochs."""
        if self.loss_sum > 0:  # 0 where a run resumes after the epoch's end: it was counted before
            mean = self.loss_sum / max(self.losses, 1)
            falls = self.lowest_loss < 0 or mean < (1 - MIN_FALL) * self.lowest_loss
            self.lowest_loss = mean if falls else self.lowest_loss
            self.level_epochs = 0 if falls else self.level_epochs + 1
        self.loss_sum, self.losses = 0.0, 0
        return self.level_epochs >= LEVEL_EPOCHS


@dataclass(frozen=True)
class Identity:
    """What must be unchanged for a run to resume: its options and its data.

    Attributes:
        defaults: the options' defaults, for options that did not exist when a checkpoint was written.
        current_names: maps the saved options to the names that options have today.
    """

    options: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    current_names: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def require_same(self, saved: Mapping[str, Any], folder: Path, progress: Progress) -> Progress:
        """Check a checkpoint's options and data against this run's.

        A longer run is allowed, also for a finished one: it resumes with the schedule of the new length.

        Returns:
            The progress, no longer finished if the run is longer.

        Raises:
            TrainingError: names each difference.
        """
        # As JSON gives them back (tuples as lists, paths as text): only so can they equal what was saved.
        current = json.loads(json.dumps({**self.options, **self.facts}, default=str))
        saved = {**json.loads(json.dumps(self.defaults, default=str)), **self.current_names(saved)}
        longer = {name for name in LENGTHS if _is_longer(name, current.get(name), saved.get(name))}
        keys = sorted((current.keys() | saved.keys()) - longer)
        changed = [f"{k} was {saved.get(k)!r}, now {current.get(k)!r}" for k in keys if saved.get(k) != current.get(k)]
        if changed:
            raise TrainingError(
                f"{folder}: belongs to another run ({'; '.join(changed)}); use the same options, "
                "or another --experiment-name"
            )
        return replace(progress, finished=False) if longer else progress


def _is_longer(name: str, now: Any, before: Any) -> bool:
    """Whether a limit was raised or removed; None is no limit, and neither is a patience of 0."""
    if name == "early_stopping_patience":
        now, before = now or None, before or None
    numbers = isinstance(before, int | float) and (now is None or isinstance(now, int | float))
    return bool(numbers and (now is None or now > before))


def progress_of(values: Mapping[str, Any]) -> Progress:
    """Progress from its saved values; raises ValueError or TypeError for values that no run can have."""
    # checkpoints of before `losses` counted skipped steps among them
    progress = Progress(**{"losses": values.get("step_in_epoch", 0), **values})
    for name, default in asdict(Progress()).items():
        value = getattr(progress, name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        # bool is an int: True must not pass for a step
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{name} is {value!r}, expected {type(default).__name__}")
        minimum = -1 if name in ("best_score", "best_epoch") else 0
        if isinstance(default, int) and not minimum <= value < 1 << 62:
            raise ValueError(f"{name} is {value!r}, which no run reaches")
    return progress
