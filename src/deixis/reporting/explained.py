"""The part of a page that explains a detector's figures: curves, classes, confusions, mistakes, pictures of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deixis.data.pixels.images import load
from deixis.evaluation.analysis import RECALLS, Analysis
from deixis.evaluation.mistakes import KINDS, Mistake, likely_label_errors, worst_images
from deixis.evaluation.thresholds import SCORES
from deixis.records import Dataset, Instances, Sample, Vocabulary
from deixis.reporting import plots
from deixis.reporting.page import Bars, Cell, Table, number, percent
from deixis.reporting.pictures import Picture, drawn, titled

WORST_IMAGES, LABEL_ERRORS = 8, 12
MAX_MATRIX, MAX_PAIRS = 16, 30
BACKGROUND = "background"
KINDS_NOTE = (
    "class: the object is of another class (IoU 0.5 or more); place: it is of the class, but elsewhere (IoU 0.1 to "
    "0.5); duplicate: it was found before, with a higher score; background: there is nothing of these; missed: an "
    "object that nothing was found for. Each detection counts from its class's threshold on."
)
WORST_NOTE = "The images whose mistakes weigh most: a false detection its score, a missed object one half."
LABELS_NOTE = (
    "Confident detections (0.5 or more) that the annotations contradict: objects that may have been overlooked, "
    "misnamed or framed carelessly. Look before you change anything: they may be mistakes of the model."
)


@dataclass(frozen=True)
class Explained:
    """What the templates show.

    Attributes:
        curves: (title, `<svg>`).
        calibration: in a sentence.
        classes: one row each, sorted by a click.
        kinds: mistakes by kind.
        confusion: the matrix, or the most frequent confusions of many classes.
        worst: a row of pictures per image.
        label_errors: a picture each.
        images: how many were looked at, in words.
    """

    curves: Sequence[tuple[str, str]]
    calibration: str
    classes: Table
    kinds: Table
    confusion: Table
    worst: Sequence[Sequence[Picture]]
    label_errors: Sequence[Picture]
    images: str
    kinds_note: str = KINDS_NOTE
    worst_note: str = WORST_NOTE
    labels_note: str = LABELS_NOTE


def explain(analysis: Analysis, dataset: Dataset, *, pictures: bool = True, images: str = "") -> Explained:
    """The parts of the page.

    Args:
        dataset: that was analysed, in the same order; images with mistakes are decoded.
        pictures: whether images are shown.
        images: how many were looked at, in words, where not all.

    Raises:
        DataError: an image cannot be read.
    """
    likely = likely_label_errors(analysis.mistakes, LABEL_ERRORS) if pictures else []
    worst = worst_images(analysis.mistakes, WORST_IMAGES) if pictures else []
    # A mistake's `image_id` is a place in the data set, from 1.
    decoded = {place: load(dataset[place - 1]) for place in sorted({*worst, *(one.image_id for one in likely)})}
    return Explained(
        curves=_curves(analysis),
        calibration=_calibration(analysis),
        classes=_classes(analysis),
        kinds=_kinds(analysis),
        confusion=_confusion(analysis),
        worst=[_worst_row(analysis, decoded[place], place) for place in worst],
        label_errors=[_label_error(analysis, decoded[one.image_id], one) for one in likely],
        images=images,
    )


def _curves(analysis: Analysis) -> list[tuple[str, str]]:
    counts, percents = analysis.counts, 100 * SCORES
    scores = {"F1, mean over classes": analysis.mean_f1, "precision": counts.precision, "recall": counts.recall}
    return [
        ("Precision over recall", plots.precision_recall_curves(RECALLS, analysis.precision_recall)),
        (
            f"F1, precision and recall over the score; the threshold is {analysis.threshold:.2f}",
            plots.score_curves(percents, scores, 100 * analysis.threshold) if len(analysis.mean_f1) else "",
        ),
        ("Precision over score, by bins", plots.reliability_diagram(analysis.reliability)),
    ]


def _calibration(analysis: Analysis) -> str:
    metrics = analysis.metrics
    if not math.isfinite(metrics.ECE):
        return "No detection scores 0.05 or more, so calibration cannot be measured."
    after = ""
    if math.isfinite(metrics.ECE_calibrated):
        after = f"; --calibrate would bring it to {percent(metrics.ECE_calibrated)} % on this data"
    return (
        f"Expected calibration error: {percent(metrics.ECE)} %{after}. "
        "On the diagonal scores are probabilities; above it, detections are right more often than they say."
    )


def _classes(analysis: Analysis) -> Table:
    rows: list[list[Cell]] = []
    for one in analysis.classes:
        figures = (one.AP, one.F1, one.precision, one.recall)
        shown: tuple[Cell, ...] = (
            *map(percent, figures),
            f"{one.threshold:.2f}",
            *(one.mistakes[kind] for kind in KINDS),
        )
        rows.append([one.name, Bars(((one.AP, "after"),)), one.objects, *shown])
    kinds = [kind.capitalize() for kind in KINDS]
    heads = ["Class", "", "Objects", "AP", "F1", "Precision", "Recall", "Threshold", *kinds]
    return Table(heads, rows, numbers=len(heads) - 2, scroll=True, sortable=True)


def _kinds(analysis: Analysis) -> Table:
    counts = Counter(one.kind for one in analysis.mistakes)
    most = max([1, *counts.values()])
    bars = {kind: Bars(((counts[kind] / most, "after"),)) for kind in KINDS}
    rows: list[list[Cell]] = [[kind.capitalize(), bars[kind], counts[kind]] for kind in KINDS]
    return Table(["Kind", "", "Mistakes"], rows, numbers=1)


def _confusion(analysis: Analysis) -> Table:
    # [classes + 1, classes + 1]: rows are annotated, columns found; the last of each is background.
    names, matrix = (*analysis.names, BACKGROUND), analysis.confusion
    if len(names) <= MAX_MATRIX:
        rows: list[list[Cell]] = [[name, *map(int, row)] for name, row in zip(names, matrix.tolist(), strict=True)]
        # Background that was rightly left alone cannot be counted.
        rows[-1][-1] = "–"
        return Table(["Object", *names], rows, numbers=len(names), title="Confusion matrix", scroll=True)
    # Without the diagonal, which is what was right.
    wrong = matrix * (1 - np.eye(len(names)))
    places = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in places if wrong.flat[place]]
    rows = [[names[row], names[column], int(wrong[row, column])] for row, column in pairs]
    title = f"The {len(rows)} most frequent confusions"
    return Table(["Object", "Found as", "Count"], rows, numbers=1, title=title, scroll=True, sortable=True)


def _worst_row(analysis: Analysis, sample: Sample, place: int) -> list[Picture]:
    """An image as annotated, and its mistakes."""
    title, pixels = titled(sample)
    mistakes = [one for one in analysis.mistakes if one.image_id == place]
    counts = Counter(one.kind for one in mistakes)
    words = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    texts = [f"{one.kind}: {_name(analysis, one)}" for one in mistakes]
    return [
        drawn(f"Annotated: {title}", pixels, sample),
        drawn(f"Mistakes: {words}", pixels, _labelled(sample, [_corners(one) for one in mistakes], texts)),
    ]


def _label_error(analysis: Analysis, sample: Sample, one: Mistake) -> Picture:
    """An image with its annotations and one detection that contradicts them."""
    title, pixels = titled(sample)
    found = f"{analysis.names[one.category_id - 1]!r} ({one.score:.2f})"
    other = "" if one.other_id is None else analysis.names[one.other_id - 1]
    words = {
        "background": f"found {found}, nothing like it is annotated there",
        "class": f"found {found} where {other!r} is annotated",
        "place": f"found {found} in another place than annotated (IoU {one.iou:.2f})",
    }
    kept = sample.instances
    labels = [*(sample.vocabulary.names[c] for c in kept.class_ids), f"found: {_name(analysis, one)}"]
    boxes = [*kept.boxes_xyxy_px.tolist(), _corners(one)]
    return drawn(f"{title}: {words[one.kind]}", pixels, _labelled(sample, boxes, labels))


def _labelled(sample: Sample, boxes_xyxy_px: Sequence[Sequence[float]], texts: Sequence[str]) -> Sample:
    """The sample with other boxes, each with a text of its own."""
    names = tuple(dict.fromkeys(texts)) or ("nothing",)
    rows = [names.index(text) for text in texts]
    instances = Instances.build(np.asarray(boxes_xyxy_px, float).reshape(-1, 4), rows)
    return Sample(Path(), sample.size_hw, instances, Vocabulary(names))


def _name(analysis: Analysis, one: Mistake) -> str:
    name = analysis.names[one.category_id - 1]
    return f"{name} {one.score:.2f}" if one.kind != "missed" else name


def _corners(one: Mistake) -> list[float]:
    left, top, width, height = one.box_xywh_px
    return [left, top, left + width, top + height]


def looked_at(count: int, total: int) -> str:
    """How many images were looked at, in words; empty for all.

    >>> looked_at(5, 5), looked_at(500, 2000).replace("\\u202f", " ")
    ('', '500 of 2 000 images, spread evenly over the data.')
    """
    return "" if count == total else f"{number(count)} of {number(total)} images, spread evenly over the data."
