"""What the report of a segmenter's run shows besides what all reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from deixis.data.pixels.tiles import union_mask
from deixis.refer_records import ReferSample, Segmentation
from deixis.reporting.page import Cell, Table
from deixis.reporting.pictures import Picture, titled
from deixis.reporting.plots import threshold_curves
from deixis.reporting.run_report import TaskFacts, figures_table
from deixis.results.draw import draw_masks

METRICS_NOTE = (
    "All in percent. cIoU: the sum of all intersections over the sum of all unions. gIoU: the mean IoU of the "
    "phrases; a phrase without an object counts 1 if its mask is empty, else 0. N_acc: the share of the phrases "
    "without an object whose mask is empty; T_acc: the share of the other phrases whose mask is not. METEOR and "
    "exact, where masks are also described: how close captions are to the phrases, and how many equal one of them."
)


@dataclass(frozen=True)
class Presence:
    """The threshold of the probability of presence, under which a mask is left empty.

    Attributes:
        curve: N_acc, T_acc and gIoU on validation data by name, over "threshold"; empty where none was fitted.
        threshold, line: the one in use, as a number and in words.
    """

    curve: Mapping[str, Sequence[float]]
    threshold: float
    line: str = ""


def segmenter_facts(
    data: Mapping[str, str],
    before: Mapping[str, float] | None,
    after: Mapping[str, float],
    groups: Mapping[str, Sequence[tuple[str, int, float | None, float]]],
    *,
    presence: Presence | None = None,
    forgetting: Sequence[tuple[str, str, str, str]] = (),
    pictures: Sequence[Sequence[Picture]] = (),
) -> TaskFacts:
    """The parts of the report.

    Args:
        data: of each data set, by its role, in words.
        before, after: metrics by name, in [0, 1], on test data, or on validation data without it.
        groups: by title: (group, phrases, gIoU before, gIoU after).
        forgetting: (figure, before, best epoch, last epoch), on validation data and on conversations.
        pictures: of `masks_row`.
    """
    return TaskFacts(
        tiles=[(name, None if before is None else before.get(name), value) for name, value in after.items()],
        metrics_note=METRICS_NOTE,
        figures=([forgetting_table(forgetting)] if forgetting else [])
        + [
            figures_table(
                f"gIoU {title}", "", ((name, before, after, n) for name, n, before, after in rows), counted="Phrases"
            )
            for title, rows in groups.items()
        ],
        data_texts=data,
        presence_curve=threshold_curves(presence.curve, presence.threshold) if presence and presence.curve else "",
        presence_note=presence.line if presence else "",
        pictures=pictures,
    )


def forgetting_table(rows: Sequence[tuple[str, str, str, str]]) -> Table:
    """What masks gained on validation data, and what conversation lost."""
    cells: list[list[Cell]] = [list(row) for row in rows]
    return Table(["", "Before", "Best epoch", "Last epoch"], cells, numbers=3, title="Gained and forgotten")


def masks_row(sample: ReferSample, before: Sequence[Segmentation], after: Sequence[Segmentation]) -> list[Picture]:
    """An image as annotated, before and after training."""
    title, pixels = titled(sample)
    truth = [
        union_mask(expression.masks_rle, sample.size_hw) for expression in sample.expressions for _ in expression.texts
    ]
    shown = {f"Annotated: {title}": truth, "Before training": _bitmaps(before), "After training": _bitmaps(after)}
    texts = [answer.text for answer in after]
    return [(caption, draw_masks(pixels, masks, texts)) for caption, masks in shown.items()]


def _bitmaps(answers: Sequence[Segmentation]) -> list[Bool[np.ndarray, "h w"]]:
    return [np.asarray(coco_mask.decode(answer.mask_rle), dtype=bool) for answer in answers]
