"""The report of a segmenter's run: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from deixis.atomic_files import write_atomic
from deixis.reporting.data import Curves
from deixis.reporting.draw_masks import draw_masks
from deixis.reporting.html import change_in_points, curve_plots, key, outcome_notes, percent, render_page, run_facts
from deixis.reporting.markup import bar, columns, escape, key_values, number, table
from deixis.reporting.outcome import Outcome
from deixis.reporting.pictures import data_uri
from deixis.reporting.plots import threshold_curves

NOTE = (
    "All in percent. cIoU: the sum of all intersections over the sum of all unions. gIoU: the mean over phrases of "
    "the IoU of each; where nothing is meant, it is 1 if nothing is found and 0 otherwise. N_acc: of the phrases that "
    "mean nothing in their picture, the share whose mask is left empty; T_acc: of the others, the share whose mask is "
    "not. METEOR and exact, where masks are described too: how near captions are to the phrases, and how many are one "
    "of them."
)


@dataclass(frozen=True)
class ReferPicture:
    """One validation picture: phrases, and their masks as annotated, before and after training."""

    title: str
    pixels: UInt8[np.ndarray, "h w 3"]
    texts: tuple[str, ...]
    truth: tuple[Bool[np.ndarray, "h w"], ...]
    before: tuple[Bool[np.ndarray, "h w"], ...] | None
    after: tuple[Bool[np.ndarray, "h w"], ...]


@dataclass(frozen=True)
class ReferReport:
    """Everything the report shows.

    Attributes:
        before, after: metrics by name, in [0, 1], on test data, or on validation data without it.
        groups: by title: (group, phrases, gIoU before, gIoU after).
        facts: of each data set, by its role.
        presence: what thresholds of the probability of presence give on validation data: N_acc, T_acc and gIoU by name,
            and the thresholds themselves; empty where none was fitted.
        presence_threshold, presence_line: the threshold in use, as a number and in words.
        outcome: what was measured of the best and of the last epoch; None leaves the table out.
    """

    title: str
    model: str
    before: Mapping[str, float] | None
    after: Mapping[str, float]
    groups: Mapping[str, Sequence[tuple[str, int, float | None, float]]]
    facts: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    parameters: Sequence[tuple[str, int, int]] = ()
    curves: Curves = field(default_factory=Curves)
    pictures: Sequence[ReferPicture] = ()
    run: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None
    presence: Mapping[str, Sequence[float]] = field(default_factory=dict)
    presence_threshold: float = math.nan
    presence_line: str = ""


def write_refer_report(path: Path, report: ReferReport) -> None:
    """Write a report as one self-contained file.

    Raises:
        DataError: the place cannot be written.
    """
    sections = {
        "Summary": _summary(report),
        "Data": key_values(report.facts),
        "What was trained": _policy(report),
        "Before and after": _groups(report),
        "Phrases without an object": _presence(report),
        "Curves": curve_plots(report.curves, "Losses, by optimiser step"),
        "Pictures": "".join(_picture(picture) for picture in report.pictures),
        "The run": run_facts(report.run, report.curves.skipped),
    }
    write_atomic(path, render_page(report.title, f"Fine-tuned from {report.model}", sections))


def _summary(report: ReferReport) -> str:
    tiles = []
    for name, after in report.after.items():
        before = None if report.before is None else report.before.get(name)
        was = "" if before is None else f"<small>{percent(before)} →</small> "
        change = (
            '<span class="faint">not measured before</span>' if before is None else change_in_points(after - before)
        )
        tiles.append(
            f'<div class="tile"><div class="name">{escape(name)}</div>'
            f'<div class="value">{was}{percent(after)}</div><div>{change}</div></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>{outcome_notes(report.outcome)}<p class="faint small">{NOTE}</p>'


def _policy(report: ReferReport) -> str:
    rows = [
        [escape(part), bar(trainable / total if total else 0, "after"), number(trainable), number(total)]
        for part, trainable, total in report.parameters
    ]
    parts = table(["Part", "Share that trains", "Trainable", "Parameters"], rows, 2) if rows else ""
    return columns(key_values(report.policy), parts)


def _groups(report: ReferReport) -> str:
    """One table a grouping: gIoU of each group before and after."""
    tables = []
    for title, groups in report.groups.items():
        rows = []
        for name, count, was, after in groups:
            before = math.nan if was is None else was
            bars = bar(before, "before") + bar(after, "after")
            change = change_in_points(after - before)
            rows.append([escape(name), bars, number(count), percent(before), percent(after), change])
        heads = ["", key("before", "after", "before", "after"), "Phrases", "Before", "After", "Change"]
        tables.append(f"<h3>gIoU {escape(title)}</h3>{table(heads, rows, 4)}")
    return columns(*tables)


def _presence(report: ReferReport) -> str:
    """The threshold below which masks are left empty, and what others would give."""
    line = f'<p class="faint small">{escape(report.presence_line)}</p>' if report.presence_line else ""
    return (threshold_curves(report.presence, report.presence_threshold) if report.presence else "") + line


def _picture(picture: ReferPicture) -> str:
    shown = [(f"Annotated: {picture.title}", picture.truth)]
    if picture.before is not None:
        shown.append(("Before training", picture.before))
    shown.append(("After training", picture.after))
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" src="{data_uri(draw_masks(picture.pixels, masks, picture.texts))}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, masks in shown
    )
    return f'<div class="pictures" style="--count:{len(shown)}">{figures}</div>'
