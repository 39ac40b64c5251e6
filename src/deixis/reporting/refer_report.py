"""What the report of a segmenter's run shows besides what all reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from deixis.reporting.draw_masks import draw_masks
from deixis.reporting.plots import threshold_curves
from deixis.reporting.run_report import TaskFacts, figures_table

METRICS_NOTE = (
    "All in percent. cIoU: the sum of all intersections over the sum of all unions. gIoU: the mean IoU of the "
    "phrases; a phrase without an object counts 1 if its mask is empty, else 0. N_acc: the share of the phrases "
    "without an object whose mask is empty; T_acc: the share of the other phrases whose mask is not. METEOR and "
    "exact, where masks are also described: how close captions are to the phrases, and how many equal one of them."
)


@dataclass(frozen=True)
class ReferPicture:
    """One validation image: phrases, and their masks as annotated, before and after training."""

    title: str
    pixels: UInt8[np.ndarray, "h w 3"]
    texts: tuple[str, ...]
    truth: tuple[Bool[np.ndarray, "h w"], ...]
    before: tuple[Bool[np.ndarray, "h w"], ...] | None
    after: tuple[Bool[np.ndarray, "h w"], ...]


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
    pictures: Sequence[ReferPicture] = (),
) -> TaskFacts:
    """The parts of the report.

    Args:
        data: of each data set, by its role, in words.
        before, after: metrics by name, in [0, 1], on test data, or on validation data without it.
        groups: by title: (group, phrases, gIoU before, gIoU after).
    """
    return TaskFacts(
        tiles=[(name, None if before is None else before.get(name), value) for name, value in after.items()],
        metrics_note=METRICS_NOTE,
        figures=[
            figures_table(
                f"gIoU {title}", "", ((name, before, after, n) for name, n, before, after in rows), counted="Phrases"
            )
            for title, rows in groups.items()
        ],
        data_texts=data,
        presence_curve=threshold_curves(presence.curve, presence.threshold) if presence and presence.curve else "",
        presence_note=presence.line if presence else "",
        pictures=[_row(picture) for picture in pictures],
    )


def _row(picture: ReferPicture) -> list[tuple[str, UInt8[np.ndarray, "_h _w 3"]]]:
    """An image as annotated, before and after training."""
    shown = {f"Annotated: {picture.title}": picture.truth, "Before training": picture.before}
    shown["After training"] = picture.after
    return [
        (caption, draw_masks(picture.pixels, masks, picture.texts))
        for caption, masks in shown.items()
        if masks is not None
    ]
