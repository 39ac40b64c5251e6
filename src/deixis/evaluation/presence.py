"""The presence threshold: the minimum probability at which a phrase's mask is shown, chosen on annotated phrases.

The model predicts for each phrase the probability that it means something in the image. Below the threshold its mask is
left empty. N_acc (GRES, arXiv 2306.00968), the share of phrases without an object that are left empty, rises with the
threshold; T_acc, the share of the other phrases that are not left empty, falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from deixis.evaluation.refer_iou import UNION_EPSILON, overlap
from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.refer_records import ReferSample, Segmentation

MIN_PHRASES = 10
"""Required with an object, and without one; fewer do not determine a threshold."""

KEPT_LEAD = 0.85
"""See `PresenceScores.best_threshold`."""

CURVE = tuple(step / 50 for step in range(51))
"""The thresholds of the curve in reports."""


@dataclass(frozen=True)
class PresenceCurve:
    """N_acc, T_acc and gIoU at each threshold, all in [0, 1]."""

    thresholds: tuple[float, ...]
    n_acc: tuple[float, ...]
    t_acc: tuple[float, ...]
    giou: tuple[float, ...]

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values for JSON, under the metrics' usual names."""
        return {
            "threshold": list(self.thresholds),
            "N_acc": [round(value, 5) for value in self.n_acc],
            "T_acc": [round(value, 5) for value in self.t_acc],
            "gIoU": [round(value, 5) for value in self.giou],
        }


@dataclass(frozen=True)
class PresenceScores:
    """Annotated phrases with the model's answers at threshold 0, where every mask is shown.

    Attributes:
        present: probability that the phrase means something; −1 where the predicted mask is empty anyway.
        ious: IoU of the predicted and the annotated mask; 0 where nothing is annotated.
        meant: whether the phrase means something, by its annotation.
    """

    present: Float[np.ndarray, " phrases"]
    ious: Float[np.ndarray, " phrases"]
    meant: Bool[np.ndarray, " phrases"]

    def why_not_fitted(self) -> str:
        """The reason why no threshold can be fitted; empty if one can."""
        absent, there = int((~self.meant).sum()), int(self.meant.sum())
        if min(absent, there) >= MIN_PHRASES:
            return ""
        return (
            f"the presence threshold is not fitted: the data has {absent} phrases without an object and {there} with "
            f"one, at least {MIN_PHRASES} of each are needed"
        )

    def best_threshold(self) -> float:
        """The threshold with the largest gIoU among those that separate the two kinds of phrases almost optimally.

        "Almost": (N_acc + T_acc) / 2 has at least `KEPT_LEAD` of the best threshold's lead over chance. Without this
        condition, poor masks, which lose little by being left empty, would make it best to leave all of them empty.
        Among equally good thresholds it returns the one farthest from any phrase's probability.
        """
        values = np.unique(np.concatenate([[0.0, 1.0], self.present[self.present >= 0]]))
        # one candidate between each two neighbouring probabilities: within a gap all thresholds are equal
        cuts, gaps = (values[1:] + values[:-1]) / 2, np.diff(values)
        lead = (self._n_acc(cuts) + self._t_acc(cuts)) / 2 - 0.5
        # `abs`: the lead is negative where no threshold is better than chance
        minimum = lead.max() - (1 - KEPT_LEAD) * abs(lead.max())
        giou = np.where(lead >= minimum - 1e-12, self._giou(cuts), -1.0)
        best = giou >= giou.max() - 1e-12
        return float(cuts[best][gaps[best].argmax()])

    def curve(self, thresholds: Sequence[float] = CURVE) -> PresenceCurve:
        """N_acc, T_acc and gIoU at each threshold."""
        at = np.array(thresholds)
        n_acc, t_acc, giou = (tuple(f(at).tolist()) for f in (self._n_acc, self._t_acc, self._giou))
        return PresenceCurve(tuple(thresholds), n_acc, t_acc, giou)

    def _giou(self, thresholds: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """A shown mask counts with its IoU, an empty one with 1 where nothing is meant and 0 otherwise."""
        order = np.argsort(self.present[self.meant])
        ious = self.ious[self.meant][order]
        shown = np.append(0.0, ious[::-1]).cumsum()[::-1]  # sum of the IoUs from the i-th probability upwards
        # [thresholds]: the first phrase shown
        first = np.searchsorted(self.present[self.meant][order], thresholds, "left")
        giou: np.ndarray = (shown[first] + self._n_acc(thresholds) * (~self.meant).sum()) / len(self.meant)
        return giou

    def _n_acc(self, thresholds: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        absent = np.sort(self.present[~self.meant])
        return np.searchsorted(absent, thresholds, "left") / len(absent)  # below the threshold, so left empty

    def _t_acc(self, thresholds: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        there = np.sort(self.present[self.meant])
        return 1 - np.searchsorted(there, thresholds, "left") / len(there)


def presence_scores(truth: Sequence[ReferSample], segmentations: Sequence[Sequence[Segmentation]]) -> PresenceScores:
    """The scores that a threshold is fitted on.

    Args:
        truth, segmentations: as in `evaluate_segmentations`, every mask shown.
    """
    rows = []
    for sample, found in zip(truth, segmentations, strict=True):
        asked = [expression for expression in sample.expressions for _ in expression.texts]
        for expression, answer in zip(asked, found, strict=True):
            shared, predicted, wanted = overlap(answer.mask_rle, expression.masks_rle)
            iou = shared / (predicted + wanted - shared + UNION_EPSILON)
            rows.append((answer.present if predicted else -1.0, iou, bool(wanted)))
    table = np.array(rows, dtype=float).reshape(-1, 3)  # [phrases, 3]; `reshape` for none
    return PresenceScores(table[:, 0], table[:, 1], table[:, 2].astype(bool))


def emptied_below(segmentations: Sequence[Segmentation], threshold: float) -> list[Segmentation]:
    """The answers, with empty masks where the probability of presence is below the threshold."""
    return [s if s.present >= threshold else replace(s, mask_rle=_empty(s.mask_rle)) for s in segmentations]


def _empty(mask: Rle) -> Rle:
    height, width = mask["size"]
    return bitmap_rle(np.zeros((height, width), bool))
