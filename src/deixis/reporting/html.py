"""The report of a fine-tuning run: one HTML file that needs nothing else, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from deixis.atomic_files import write_atomic
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.trade_off import knee
from deixis.reporting import plots
from deixis.reporting.data import Curves, DatasetFacts, ForgettingFacts, ReportData
from deixis.reporting.markup import bar, columns, escape, key_values, number, section, table
from deixis.reporting.outcome import OPTIMISTIC, Outcome
from deixis.reporting.pictures import picture_rows

HEADLINE = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AR100": "AR100"}
SIZES = {"small": "AP_small", "medium": "AP_medium", "large": "AP_large"}
METRICS_NOTE = (
    "All in percent. AP is COCO's average precision over IoU 0.50 to 0.95, AP50 and AP75 at one IoU, AR100 the recall "
    "with the detections of an image that count. Objects are small under 32², large over 96² pixels of area. Crowds "
    "are ignored."
)
LOSSES_NOTE = (
    '<p class="faint small">Lines are means over spans of steps, shades the least and most. No suffix: the last '
    "decoder layer; _0, _1, ...: the layers before it; _enc: the encoder's proposals.</p>"
)

VALIDATION_NOTE = (
    '<p class="faint small">Dashed, with dots: the same losses on validation data, without augmentation and dropout. '
    "Where they rise while those of training fall, the model learns the training images by heart.</p>"
)


def write_report(path: Path, report: ReportData) -> None:
    """Write a report as one self-contained file.

    Raises:
        DataError: the place cannot be written.
    """
    write_atomic(path, render_report(report))


def render_report(report: ReportData) -> str:
    """The report's HTML; every text from outside is escaped."""
    sections = {
        "Summary": _summary(report),
        "Data": _data(report.training, report.validation, *([report.test] if report.test else [])),
        "What was trained": _policy(report),
        "Before and after": _before_and_after(report),
        "Forgetting": _forgetting(report.forgetting, "test" if report.test else "validation"),
        "Curves": curve_plots(report.curves, "Loss components, by optimiser step", LOSSES_NOTE),
        "Pictures": picture_rows(report.pictures),
        "The run": run_facts(report.run, report.curves.skipped),
    }
    return render_page(report.title, f"Fine-tuned from {report.model}", sections)


def render_page(title: str, subtitle: str, sections: Mapping[str, str]) -> str:
    """A page of titled cards with links to them; cards without a body are left out.

    Args:
        title, subtitle: plain text.
        sections: title to HTML body.
    """
    shown = {name: body for name, body in sections.items() if body}
    anchors = {name: name.lower().replace(" ", "-") for name in shown}
    links = "".join(f'<a href="#{anchors[name]}">{name}</a>' for name in shown)
    heading = f'<h1>{escape(title)}</h1><div class="faint">{escape(subtitle)}</div>'
    body = f"{heading}<nav>{links}</nav>" + "".join(section(n, anchors[n], b) for n, b in shown.items())
    template = files("deixis.reporting").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=escape(title), body=body)


def _summary(report: ReportData) -> str:
    """The headline numbers, before to after."""
    tiles = []
    for name, attribute in HEADLINE.items():
        after = percent(getattr(report.after, attribute))
        if report.before is None:
            value, change = f"{after}", '<span class="faint">not measured before</span>'
        else:
            value = f"<small>{percent(getattr(report.before, attribute))} →</small> {after}"
            change = _change(report.before, report.after, attribute)
        tiles.append(
            f'<div class="tile"><div class="name">{name}</div><div class="value">{value}</div><div>{change}</div></div>'
        )
    what = "Test data" if report.test else "Validation data"
    measured = (
        f"{what}: {number(report.after.images)} images with {number(report.after.boxes)} objects of "
        f"{number(len(report.measured.boxes_per_class))} classes ({escape(report.measured.name)}); "
        f"at most {number(report.after.max_detections)} detections of an image count."
    )
    note = f'<p>{measured}</p>{outcome_notes(report.outcome)}<p class="faint small">{METRICS_NOTE}</p>'
    return f'<div class="tiles">{"".join(tiles)}</div>{note}'


def outcome_notes(outcome: Outcome | None) -> str:
    """How far the figures can be trusted, and the table of the epochs that were measured, in HTML."""
    if outcome is None:
        return ""
    notes = [] if outcome.reported_on == "test" else [f"Measured {OPTIMISTIC}."]
    notes += [f"{line[0].upper()}{line[1:]}." for line in outcome.warnings()]
    warnings = "".join(f"<p><b>{escape(note)}</b></p>" for note in notes)
    rows = []
    for label, state in (("Before training", outcome.before), ("Best", outcome.best), ("Last", outcome.last)):
        if state is not None:
            figures = (values.get(outcome.score, math.nan) for values in (state.validation, state.test))
            rows.append([label, number(state.epoch), *map(percent, figures)])
    heads = ["Weights", "Epoch", f"{outcome.score}, validation", f"{outcome.score}, test"]
    tested = outcome.reported_on == "test"
    shown = [row if tested else row[:-1] for row in (heads, *rows)]
    return warnings + table(shown[0], shown[1:], 2 if not tested else 3)


def _data(training: DatasetFacts, *measured: DatasetFacts) -> str:
    """Facts of the data sets, side by side: training, validation and, where there is one, test."""
    every = (training, *measured)
    rows = [
        ["Images", *(number(facts.images) for facts in every)],
        ["Images without an object", *(number(facts.empty_images) for facts in every)],
        ["Objects", *(number(facts.boxes) for facts in every)],
        ["Crowds (no targets, ignored)", *(number(facts.crowds) for facts in every)],
        ["Most objects in an image", *(number(facts.max_boxes) for facts in every)],
        ["Objects small / medium / large", *map(_size_counts, every)],
        ["Object side, least / median / most, px", *map(_sides, every)],
        ["Image size, least / median / most, px", *map(_image_sizes, every)],
    ]
    names = list(dict.fromkeys(name for facts in every for name in facts.boxes_per_class))
    most = max([1, *(count for facts in every for count in facts.boxes_per_class.values())])
    class_rows = []
    for name in names:
        counts = [facts.boxes_per_class.get(name, 0) for facts in every]
        bars = bar(counts[0] / most, "after") + bar(counts[1] / most, "before")
        class_rows.append([escape(name), bars, *map(number, counts)])
    roles = ["Training", "Validation", "Test"][: len(every)]
    titles = [f"{role}: {escape(one.name)}" for role, one in zip(roles, every, strict=True)]
    facts = table(["", *titles], rows, len(every))
    legend = key("training", "validation", "after", "before")
    classes = table(["Class", legend, *roles], class_rows, len(every))
    return f'{facts}<h3>Objects by class</h3><div class="scroll">{classes}</div>'


def _policy(report: ReportData) -> str:
    """The recipe, and which parts of the model learned."""
    if not report.policy and not report.parameters:
        return ""
    rows = [
        [escape(part), bar(trainable / total if total else 0, "after"), number(trainable), number(total)]
        for part, trainable, total in report.parameters
    ]
    learns, whole = sum(row[1] for row in report.parameters), sum(row[2] for row in report.parameters)
    rows.append(["<b>All</b>", bar(learns / whole if whole else 0, "after"), number(learns), number(whole)])
    parts = table(["Part", "Share that trains", "Trainable", "Parameters"], rows, 2)
    return columns(key_values(report.policy), parts)


def _before_and_after(report: ReportData) -> str:
    """Metrics overall, by size and by class."""
    before, after = report.before, report.after
    overall = [_metric_row(name, before, after, attribute) for name, attribute in HEADLINE.items()]
    by_size = [
        _metric_row(name, before, after, attribute, report.measured.boxes_per_size.get(name))
        for name, attribute in SIZES.items()
    ]
    by_class = []
    for name, count in report.measured.boxes_per_class.items():
        values = [None if metrics is None else metrics.per_class.get(name) for metrics in (before, after)]
        by_class.append(_row(escape(name), values[0], values[1], count))
    legend = key("before", "after", "before", "after")
    tables = columns(
        f"<h3>Overall</h3>{table(['Metric', legend, 'Before', 'After', 'Change'], overall, 3)}",
        f"<h3>AP by object size</h3>{table(['Size', legend, 'Objects', 'Before', 'After', 'Change'], by_size, 4)}",
    )
    classes = table(["Class", legend, "Objects", "Before", "After", "Change"], by_class, 4)
    return f'{tables}<h3>AP by class</h3><div class="scroll">{classes}</div>'


def _forgetting(facts: ForgettingFacts | None, new: str) -> str:
    """AP on old data against AP on new data along the way from the base to the tuned model.

    Args:
        new: which data is the new one.
    """
    if facts is None:
        return ""
    best = knee(facts.points)
    rows = []
    for point in facts.points:
        ends = {0.0: " (before)", 1.0: " (after)"}.get(point.weight, "")
        label = f"{point.weight:g}{ends}" + (" <b>knee</b>" if point == best else "")
        rows.append([label, *map(percent, (point.AP_new, point.AP_old, point.balance))])
    plot = f'<div class="plot">{plots.trade_off_curve(facts.points, best)}</div>'
    note = (
        f"AP in percent on {number(facts.new_images)} images of the {new} data (new) "
        f"and {number(facts.old_images)} of {escape(facts.old_name)} (old), "
        "for models between the base (weight 0) and the tuned one (weight 1). The knee is the largest harmonic mean, "
        "chosen on these very images: its figures are a little optimistic."
    )
    command = f"<pre>{escape(facts.command)}</pre>" if facts.command else ""
    return columns(
        plot, table(["Weight", "New", "Old", "Mean"], rows, 3) + f'<p class="faint small">{note}</p>' + command
    )


def curve_plots(curves: Curves, losses_title: str, note: str = "") -> str:
    """Validation metrics, learning rates and every loss component; a note, in HTML, under the last."""
    small = [
        ("Validation, percent", plots.metric_curves(curves.epochs, curves.epoch_metrics)),
        ("Learning rate", plots.learning_rate_curves(curves.steps, curves.learning_rates)),
    ]
    body = columns(*(f'<h3>{title}</h3><div class="plot">{svg}</div>' for title, svg in small if svg))
    losses = plots.loss_curves(curves.steps, curves.losses, curves.validation_steps, curves.validation_losses)
    note += VALIDATION_NOTE if curves.validation_losses else ""
    return body + (f'<h3>{losses_title}</h3><div class="plot">{losses}</div>{note}' if losses else "")


def run_facts(facts: Mapping[str, str], skips: Sequence[str]) -> str:
    """How a run went, and the steps that it skipped."""
    if skips:
        lines = "".join(f"<li>{escape(line)}</li>" for line in skips)
        skipped = f"<p>{number(len(skips))} optimiser steps were skipped:</p><ul>{lines}</ul>"
    else:
        skipped = "<p>No optimiser step was skipped.</p>"
    return key_values(facts) + f"<h3>Skipped steps</h3>{skipped}"


def _metric_row(
    label: str, before: DetectionMetrics | None, after: DetectionMetrics, attribute: str, count: int | None = None
) -> list[str]:
    return _row(label, None if before is None else getattr(before, attribute), getattr(after, attribute), count)


def _row(label: str, before: float | None, after: float | None, count: int | None) -> list[str]:
    """One metric: its name, both bars, the number of objects where it is given, both values and the change."""
    values = [math.nan if value is None else value for value in (before, after)]
    bars = bar(values[0], "before") + bar(values[1], "after")
    counted = [] if count is None else [number(count)]
    return [label, bars, *counted, percent(values[0]), percent(values[1]), change_in_points(values[1] - values[0])]


def _change(before: DetectionMetrics, after: DetectionMetrics, attribute: str) -> str:
    return change_in_points(getattr(after, attribute) - getattr(before, attribute))


def change_in_points(change: float) -> str:
    """A change in points, coloured by its sign."""
    points = round(100 * change, 1) if math.isfinite(change) else math.nan
    if math.isnan(points):
        return '<span class="faint">–</span>'
    colour = "up" if points > 0 else "down" if points < 0 else "faint"
    return f'<span class="{colour}">{points:+.1f}</span>'


def percent(value: float) -> str:
    """A share as a percentage, a dash for NaN."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def key(first: str, second: str, first_style: str, second_style: str) -> str:
    """What the two bars of a row stand for."""
    return f'<span class="key"><i class="{first_style}"></i>{first}<i class="{second_style}"></i>{second}</span>'


def _size_counts(facts: DatasetFacts) -> str:
    return " / ".join(number(facts.boxes_per_size.get(size, 0)) for size in SIZES)


def _sides(facts: DatasetFacts) -> str:
    return " / ".join(f"{side:.0f}" for side in facts.box_side_px)


def _image_sizes(facts: DatasetFacts) -> str:
    return " / ".join(f"{width}×{height}" for height, width in facts.image_sizes_hw)
