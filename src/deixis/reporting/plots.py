"""Curves as inline SVG: no pixels, no outside resources, and colours that follow the page.

Each function returns an `<svg>` element, or an empty text where there is nothing to draw.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from deixis.evaluation.trade_off import TradeOff

BLUE, ORANGE, GREEN, PURPLE = "#2f81f7", "#f0883e", "#2da44e", "#a371f7"
LINE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#db61a2", "#768390")
MAX_BARS = 40  # of a histogram
MAX_POINTS = 160  # of a curve; a longer one is averaged in equal spans
_PAGE_COLOUR = "#010203"  # drawn by matplotlib, then replaced by the page's own text colour
_GREY = "#8b949e"


def loss_curves(
    steps: Sequence[int],
    losses: Mapping[str, Sequence[float]],
    validation_steps: Sequence[int] = (),
    validation_losses: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Every loss component in a small panel of its own, the total first and layers in a row.

    Args:
        steps: the optimiser step of each value.
        losses: values by component; NaN where a step was skipped.
        validation_steps, validation_losses: the same on validation data; drawn dashed, with a dot for each value.
    """
    names = sorted((name for name in losses if len(losses[name])), key=_component_order)
    if not names:
        return ""
    columns = 4
    rows = -(-len(names) // columns)
    figure = _figure(11.5, 1.55 * rows + 0.3)
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        x, mean, low, high = _averaged(steps, losses[name])
        colour = LINE_COLOURS[_kind(name)]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=colour, linewidth=1.4)
        if validation_losses and len(validation_losses.get(name, ())):
            x, mean, _, _ = _averaged(validation_steps, validation_losses[name])
            axes.plot(x, mean, "--", color=_PAGE_COLOUR, linewidth=1, marker="o", markersize=2.5)
        axes.set_title(name, fontsize=9, loc="left", color=_PAGE_COLOUR, parse_math=False)
        _plain(axes)
    return _svg(figure, "Loss components over optimiser steps")


def metric_curves(epochs: Sequence[int], metrics: Mapping[str, Sequence[float]]) -> str:
    """Validation metrics over epochs, in percent; epoch 0 is before training."""
    curves = {name: 100 * np.asarray(values, float) for name, values in metrics.items()}
    return _one_panel(epochs, curves, "Epoch", "Validation metrics over epochs", marker="o")


def learning_rate_curves(steps: Sequence[int], rates: Mapping[str, Sequence[float]]) -> str:
    """The learning rate of each parameter group over optimiser steps."""
    return _one_panel(steps, rates, "Optimiser step", "Learning rate over optimiser steps")


def threshold_curves(curve: Mapping[str, Sequence[float]], chosen: float) -> str:
    """Metrics over a threshold, both in percent; a dashed line marks the chosen one.

    Args:
        curve: thresholds under "threshold", metrics by name, all in [0, 1].
    """
    percent = {name: 100 * np.asarray(values, float) for name, values in curve.items()}
    thresholds = percent.pop("threshold")
    description = "N_acc, T_acc and gIoU over the presence threshold"
    return _one_panel(thresholds, percent, "Presence threshold, %", description, marked=100 * chosen)


def precision_recall_curves(recalls: Sequence[float] | np.ndarray, curves: Mapping[str, np.ndarray]) -> str:
    """Precision over recall, both in percent.

    Args:
        curves: precision at each of `recalls`, in [0, 1], by name.
    """
    percents = {name: 100 * np.asarray(values, float) for name, values in curves.items()}
    return _one_panel(100 * np.asarray(recalls), percents, "Recall, %", "Precision over recall")


def score_curves(scores: np.ndarray, curves: Mapping[str, np.ndarray], chosen: float) -> str:
    """Figures over the score from which detections count, all in percent; a dashed line marks the chosen score."""
    percents = {name: 100 * np.asarray(values, float) for name, values in curves.items()}
    return _one_panel(scores, percents, "Score, %", "F1, precision and recall over the score", marked=chosen)


def reliability_diagram(rows: Sequence[tuple[float, float, int]]) -> str:
    """Precision over score, in percent, of bins of detections; the diagonal is a calibrated detector.

    Args:
        rows: (mean score, precision, detections), both shares in [0, 1].
    """
    if not rows:
        return ""
    figure, axes = _panel(2.9, "Score, %", "Right, %")
    scores, precision, counts = (np.asarray(values, float) for values in zip(*rows, strict=True))
    axes.plot([0, 100], [0, 100], "--", color=_GREY, linewidth=1)
    axes.plot(100 * scores, 100 * precision, color=BLUE, linewidth=1.2)
    axes.scatter(100 * scores, 100 * precision, s=10 + 90 * counts / counts.max(), color=BLUE, alpha=0.7)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    _plain(axes)
    return _svg(figure, "Precision over score, by bins")


def histogram(values: Float[np.ndarray, " n"], x_label: str, whole: bool = False, log: bool = False) -> str:
    """How often values occur.

    Args:
        values: finite numbers; above 0 with `log`.
        whole: they are whole numbers, counted one by one where they are few.
        log: spans of equal ratio in place of equal width.
    """
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    if whole:
        # whole numbers in the middle of their bars
        edges = np.arange(low - 0.5, high + 1, max(1, -(-int(high - low + 1) // MAX_BARS)))
        # One more bar where the last one ends below the largest value.
        edges = edges if edges[-1] > high else np.append(edges, 2 * edges[-1] - edges[-2])
    elif log:
        low = max(low, 1e-3)
        # A little wider: rounding must not push the extremes out.
        edges = np.geomspace(low * 0.98, max(high, low) * 1.02, MAX_BARS + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1, MAX_BARS + 1)
    counts, edges = np.histogram(values, edges)
    figure, axes = _panel(2.6, x_label)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE, edgecolor="none")
    if log:
        axes.set_xscale("log")
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if edges[0] <= t <= edges[-1]]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        axes.minorticks_off()
    _plain(axes)
    if not log:
        axes.locator_params(axis="x", nbins=5, integer=whole)
    return _svg(figure, f"Histogram: {x_label}")


def trade_off_curve(points: Sequence[TradeOff], best: TradeOff) -> str:
    """AP on old data over AP on new data, in percent, each point with its weight; the best one is marked."""
    figure, axes = _panel(3.4, "AP on new data", "AP on old data")
    new, old = (100 * np.array([getattr(point, name) for point in points]) for name in ("AP_new", "AP_old"))
    axes.plot(new, old, color=BLUE, linewidth=1.6, marker="o", markersize=4)
    axes.plot(100 * best.AP_new, 100 * best.AP_old, "o", color=ORANGE, markersize=8)
    for point, x, y in zip(points, new, old, strict=True):
        text = f"{point.weight:g}, knee" if point == best else f"{point.weight:g}"
        axes.annotate(text, (x, y), (5, 5), textcoords="offset points", fontsize=8, color=_PAGE_COLOUR)
    axes.margins(0.12)
    _plain(axes)
    return _svg(figure, "AP on old data over AP on new data, from the base to the tuned model")


def _one_panel(
    x: Sequence[float] | np.ndarray,
    curves: Mapping[str, Sequence[float] | np.ndarray],
    x_label: str,
    description: str,
    *,
    marker: str | None = None,
    marked: float | None = None,
) -> str:
    """Curves in one panel, with a dashed vertical line at `marked`."""
    curves = {name: values for name, values in curves.items() if len(values)}
    if not curves:
        return ""
    figure, axes = _panel(2.9, x_label)
    for i, (name, values) in enumerate(curves.items()):
        at, mean, _, _ = _averaged(x, values)
        axes.plot(at, mean, color=LINE_COLOURS[i % len(LINE_COLOURS)], linewidth=1.6, marker=marker, markersize=3.5)
        # Or matplotlib reads what is between two signs as a formula.
        axes.lines[-1].set_label(name.replace("$", r"\$"))
    if marked is not None:
        axes.axvline(marked, color=_GREY, linewidth=1, linestyle="--")
    legend = axes.legend(frameon=False, fontsize=8, labelcolor=_PAGE_COLOUR, loc="best", ncols=1 + len(curves) // 5)
    legend.set_in_layout(False)  # else it would shrink the panel
    _plain(axes)
    return _svg(figure, description)


def _component_order(name: str) -> tuple[int, int, str]:
    """The total, then kinds (class, box, GIoU), each with the last layer, layers 0 to 4, and the encoder."""
    suffix = name.rpartition("_")[2]
    place = int(suffix) + 1 if suffix.isdigit() else (100 if suffix == "enc" else 0)
    return _kind(name), place, name


def _kind(name: str) -> int:
    for kind, start in enumerate(("loss_ce", "loss_bbox", "loss_giou"), start=1):
        if name.startswith(start):
            return kind
    return 0 if name == "loss" else 4 if name.startswith("loss") else 5


def _averaged(steps: Any, values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, mean, smallest, largest) in at most `MAX_POINTS` equal spans; values that are not finite are left out."""
    x, y = np.asarray(steps, float)[: len(values)], np.asarray(values, float)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    spans = np.array_split(np.arange(len(y)), min(len(y), MAX_POINTS)) if len(y) else []
    rows = [(x[span].mean(), y[span].mean(), y[span].min(), y[span].max()) for span in spans]
    table = np.array(rows).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def _figure(width_in: float, height_in: float) -> Any:
    """A figure without pyplot, so that nothing global changes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _panel(height_in: float, x_label: str, y_label: str = "") -> tuple[Any, Any]:
    """A figure and its only axes."""
    figure = _figure(5.6, height_in)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, fontsize=9, color=_PAGE_COLOUR)
    axes.set_ylabel(y_label, fontsize=9, color=_PAGE_COLOUR)
    return figure, axes


def _plain(axes: Any) -> None:
    """No box, faint horizontal lines, small grey numbers."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.grid(axis="y", color=_GREY, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=_PAGE_COLOUR, labelsize=7.5, length=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5, integer=True)
    if axes.get_yscale() == "linear":
        axes.locator_params(axis="y", nbins=4)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=False)
        axes.yaxis.get_offset_text().set(fontsize=7, color=_PAGE_COLOUR)


def _svg(figure: Any, description: str) -> str:
    """The figure as an `<svg>` element to be put into a page."""
    import matplotlib

    written = io.StringIO()
    # text stays text; a fixed salt gives the same ids each time
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description, "font.family": "sans-serif"}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Inside of HTML an <svg> needs no namespaces.
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    start, end, rest = svg.partition(">")
    # Without a size of its own it fits the page's columns.
    start = re.sub(r' (width|height)="[^"]*"', "", start).replace("<svg", f'<svg role="img" aria-label="{description}"')
    rest = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", rest)
    return start + end + rest.replace(_PAGE_COLOUR, "currentColor")
