"""Mean and spread of a run repeated with several seeds: a table, and a page of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deixis.reporting.outcome import OPTIMISTIC, Measured, Outcome
from deixis.reporting.page import Table, write_page

SUMMARY = {"mean": "mean", "std": "standard deviation", "min": "lowest", "max": "highest"}


@dataclass(frozen=True)
class SeedTable:
    """Figures of repeated runs.

    Attributes:
        title: what the figures are of.
        reported_on: "test" or "validation".
        heads, rows: a row for each seed, as text.
        summary: rows of the mean, the standard deviation, and the lowest and highest figure.
        statistics: {column: {"mean": ..., "std": ..., "min": ..., "max": ..., "values": [...]}}.
        warnings: why the figures may mislead.
    """

    title: str
    reported_on: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: Sequence[Sequence[str]]
    statistics: Mapping[str, Mapping[str, float | list[float]]]
    warnings: Sequence[str]


def seed_table(outcomes: Mapping[int, Outcome], names: Sequence[str]) -> SeedTable:
    """The table of the runs of several seeds, all measured on the same data.

    Args:
        names: metrics; those that no run measured are left out.
    """
    first = next(iter(outcomes.values()))
    names = [name for name in names if name in (first.reported(first.best) or {})]
    columns: dict[str, list[float]] = {}
    for name in names:
        for state in ("before", "best", "last"):
            columns[f"{name} {state}"] = [_figure(one, getattr(one, state), name) for one in outcomes.values()]
        columns[f"{name} gain"] = [
            best - before for best, before in zip(columns[f"{name} best"], columns[f"{name} before"], strict=True)
        ]
    # A figure that one seed lacks has no mean over seeds.
    columns = {name: values for name, values in columns.items() if not any(map(math.isnan, values))}
    rows = [
        [str(seed), str(outcome.best.epoch), *(f"{values[place]:.4f}" for values in columns.values())]
        for place, (seed, outcome) in enumerate(outcomes.items())
    ]
    numbers = {name: _statistics(values) for name, values in columns.items()}
    summary = [[label, "", *(f"{found[key]:.4f}" for found in numbers.values())] for key, label in SUMMARY.items()]
    reported_on = first.reported_on
    warnings = [] if reported_on == "test" else [f"figures are {OPTIMISTIC}"]
    warnings += [f"seed {seed}: {line}" for seed, outcome in outcomes.items() for line in outcome.warnings()]
    title = f"figures on {reported_on} data"
    return SeedTable(title, reported_on, ("seed", "best epoch", *columns), rows, summary, numbers, warnings)


def write_seeds_page(path: Path, title: str, seeds: SeedTable) -> None:
    """Write the table as one HTML file.

    Raises:
        DataError: the place cannot be written.
    """
    figures = Table(seeds.heads, [*seeds.rows, *seeds.summary], numbers=len(seeds.heads) - 1)
    subtitle = f"{len(seeds.rows)} seeds, {seeds.title}"
    write_page(path, "seeds", title=title, subtitle=subtitle, figures=figures, warnings=seeds.warnings)


def _figure(outcome: Outcome, state: Measured | None, name: str) -> float:
    values = outcome.reported(state) or {}
    return float(values.get(name, math.nan))


def _statistics(values: list[float]) -> dict[str, float | list[float]]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    found: dict[str, float | list[float]] = {"mean": statistics.fmean(values), "std": spread}
    return found | {"min": min(values), "max": max(values), "values": values}
