"""The report of a training run, of a detector or a segmenter: one HTML file, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deixis.atomic_files import write_atomic
from deixis.reporting import plots
from deixis.reporting.data import Curves
from deixis.reporting.explained import Explained
from deixis.reporting.outcome import OPTIMISTIC, Outcome
from deixis.reporting.page import Bars, Cell, Change, Legend, Table, percent, render_page
from deixis.reporting.pictures import Picture

BEFORE_AFTER = Legend((("before", "before"), ("after", "after")))
VALIDATION_NOTE = (
    "Dashed, with dots: the same losses on validation data, without augmentation and dropout. Where they rise while"
    " the training losses fall, the model overfits."
)


@dataclass(frozen=True)
class RunFacts:
    """What the reports of all runs show.

    Attributes:
        title: the run's name.
        model: the checkpoint that training started from.
        outcome: what was measured of the best and of the last epoch; None leaves the table out.
        policy: the recipe and its settings, as text by name.
        parameters: (part of the model, trainable, all) parameter counts.
        curves: losses, learning rates and metrics over the run.
        facts: time, memory, versions, command, seed and the like, as text by name.
    """

    title: str
    model: str
    outcome: Outcome | None = None
    policy: Mapping[str, str] = field(default_factory=dict)
    parameters: Sequence[tuple[str, int, int]] = ()
    curves: Curves = field(default_factory=Curves)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Forgetting:
    """What was given for what was gained; see `detect_report.forgetting_part`.

    Attributes:
        curve: an `<svg>`.
        command: writes the model at the knee; may be empty.
    """

    curve: str
    table: Table
    note: str
    command: str


@dataclass(frozen=True)
class TaskFacts:
    """What differs between the reports of a detector and of a segmenter.

    Attributes:
        tiles: (metric, before, after) of the headline; before is None where it was not measured.
        metrics_note: what the metrics mean.
        figures: tables of metrics before and after, by `figures_table`.
        measured_on: the data of the figures, in a sentence.
        data_texts, data_tables: the data sets, in words or in numbers.
        losses_note: what the names of the losses mean.
        presence_curve: an `<svg>` of metrics over the presence threshold.
        presence_note: the threshold in use, in words.
        pictures: a row for each image: as annotated, before and after training.
        explained: of a detector: curves, calibration and mistakes.
    """

    tiles: Sequence[tuple[str, float | None, float]]
    metrics_note: str
    figures: Sequence[Table]
    measured_on: str = ""
    data_texts: Mapping[str, str] = field(default_factory=dict)
    data_tables: Sequence[Table] = ()
    forgetting: Forgetting | None = None
    losses_note: str = ""
    presence_curve: str = ""
    presence_note: str = ""
    pictures: Sequence[Sequence[Picture]] = ()
    pictures_note: str = ""
    explained: Explained | None = None


def write_run_report(path: Path, run: RunFacts, task: TaskFacts) -> None:
    """Write a report as one file.

    Raises:
        DataError: the place cannot be written.
    """
    write_atomic(path, render_run_report(run, task))


def render_run_report(run: RunFacts, task: TaskFacts) -> str:
    """The report's HTML."""
    curves = run.curves
    shown = {
        "title": run.title,
        "model": run.model,
        "warnings": outcome_warnings(run.outcome),
        "epochs": outcome_table(run.outcome),
        "policy": run.policy,
        "parameters": _parameters_table(run.parameters),
        "curves": {
            "metrics": plots.metric_curves(curves.epochs, curves.epoch_metrics),
            "learning_rates": plots.learning_rate_curves(curves.steps, curves.learning_rates),
            "losses": plots.loss_curves(curves.steps, curves.losses, curves.validation_steps, curves.validation_losses),
            "validation_note": VALIDATION_NOTE if curves.validation_losses else "",
        },
        "facts": run.facts,
        "skipped": curves.skipped,
    }
    return render_page("run", run=shown, task=task)


def outcome_warnings(outcome: Outcome | None) -> list[str]:
    """How far the figures can be trusted, in sentences."""
    if outcome is None:
        return []
    optimistic = [] if outcome.reported_on == "test" else [f"Measured {OPTIMISTIC}."]
    return optimistic + [f"{line[0].upper()}{line[1:]}." for line in outcome.warnings()]


def outcome_table(outcome: Outcome | None) -> Table | None:
    """The score of the epochs that were measured, on validation data and, where there is any, on test data."""
    if outcome is None:
        return None
    parts = ("validation", "test") if outcome.reported_on == "test" else ("validation",)
    states = {"Before training": outcome.before, "Best": outcome.best, "Last": outcome.last}
    rows: list[list[Cell]] = [
        [label, state.epoch, *(percent(getattr(state, part).get(outcome.score, math.nan)) for part in parts)]
        for label, state in states.items()
        if state is not None
    ]
    return Table(["Weights", "Epoch", *(f"{outcome.score}, {part}" for part in parts)], rows, numbers=1 + len(parts))


def figures_table(
    title: str,
    group: str,
    figures: Iterable[tuple[str, float | None, float | None, int | None]],
    *,
    counted: str = "",
    scroll: bool = False,
) -> Table:
    """Metrics before and after.

    Args:
        group: heading of the first column.
        figures: (name, before, after, how many of what `counted` names).
    """
    heads: list[str | Legend] = [group, BEFORE_AFTER, *([counted] if counted else []), "Before", "After", "Change"]
    rows: list[list[Cell]] = []
    for name, *values, count in figures:
        before, after = (math.nan if value is None else value for value in values)
        bars = Bars(((before, "before"), (after, "after")))
        counts = [count or 0] if counted else []
        rows.append([name, bars, *counts, percent(before), percent(after), Change(before, after)])
    return Table(heads, rows, numbers=3 + bool(counted), title=title, scroll=scroll)


def _parameters_table(parameters: Sequence[tuple[str, int, int]]) -> Table | None:
    if not parameters:
        return None
    _, trainable, total = zip(*parameters, strict=True)
    rows = [
        [part, Bars(((learns / of if of else 0, "after"),)), learns, of]
        for part, learns, of in (*parameters, ("All", sum(trainable), sum(total)))
    ]
    return Table(["Part", "Trainable share", "Trainable", "Parameters"], rows, numbers=2)
