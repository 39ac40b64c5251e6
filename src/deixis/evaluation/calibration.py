"""Scores that mean what they say: of the detections that score 0.8, eight in ten should be right.

Temperature scaling (Guo et al., arXiv 1706.04599) with a shift: detectors of names score most objects too low, which a
temperature alone cannot mend. The order of detections, and with it AP, stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from deixis.evaluation.thresholds import Counts

MIN_SCORE = 0.05
"""Detections that score less are neither fitted nor measured: there are thousands, all wrong, and nobody sees them."""
MIN_RIGHT = 20
"""From fewer right detections nothing is fitted."""
BINS = 15


def calibrated(scores: Float[np.ndarray, "*any"], calibration: Mapping[str, float]) -> Float[np.ndarray, "*any"]:
    """sigmoid(logit(score) / temperature + shift); the scores themselves without a calibration.

    >>> calibrated(np.array([0.5, 0.9]), {"temperature": 1.0, "shift": 0.0}).round(6).tolist()
    [0.5, 0.9]
    """
    if not calibration:
        return scores
    # Platt's scaling; with shift 0 the temperature scaling of Guo et al., arXiv 1706.04599, eq. 9
    moved = _logit(scores) / calibration["temperature"] + calibration["shift"]
    out: np.ndarray = 1 / (1 + np.exp(-moved))
    return out


def fit_calibration(counts: Counts) -> dict[str, float]:
    """Temperature and shift at which right and wrong detections are likeliest; empty where too few are right."""
    from scipy.optimize import minimize

    scores, hits = _seen(counts)
    if hits.sum() < MIN_RIGHT or hits.all():
        return {}
    logits = _logit(scores)

    def loss(parameters: Float[np.ndarray, " 2"]) -> float:
        """Cross entropy, of a log-temperature and a shift."""
        moved = logits * math.exp(-parameters[0]) + parameters[1]
        # -log of the likelihood: softplus(x) - y x for a logit x and an answer y of 0 or 1
        return float((np.logaddexp(0, moved) - hits * moved).mean())

    bounds = [(-3.0, 3.0), (-8.0, 8.0)]  # a temperature from 0.05 to 20
    log_temperature, shift = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds).x
    return {"temperature": round(math.exp(log_temperature), 6), "shift": round(float(shift), 6)}


def calibration_error(counts: Counts, calibration: Mapping[str, float] | None = None) -> float:
    """Expected calibration error: |precision - mean score| in bins of equal width, weighted by detections.

    Args:
        calibration: applied to the scores first.

    Returns:
        NaN without a detection of `MIN_SCORE` or more.
    """
    # ECE = Σ n_b / n · |precision_b - score_b|, Guo et al., arXiv 1706.04599, eq. 3
    rows = reliability(counts, calibration)
    total = sum(count for _, _, count in rows)
    return sum(count * abs(precision - score) for score, precision, count in rows) / total if total else math.nan


def reliability(counts: Counts, calibration: Mapping[str, float] | None = None) -> list[tuple[float, float, int]]:
    """(mean score, share that is right, detections) of each bin of scores that has detections."""
    scores, hits = _seen(counts)
    scores = calibrated(scores, calibration or {})
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)  # a score of 1 is of the last bin
    inside = [bins == number for number in range(BINS)]
    return [(float(scores[rows].mean()), float(hits[rows].mean()), int(rows.sum())) for rows in inside if rows.any()]


def _seen(counts: Counts) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Scores of the detections that count, and 1 for those that are right."""
    scores = np.concatenate([counts.right_scores, counts.wrong_scores])
    hits = np.concatenate([np.ones(len(counts.right_scores)), np.zeros(len(counts.wrong_scores))])
    seen = scores >= MIN_SCORE
    return scores[seen], hits[seen]


def _logit(scores: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    inside = np.clip(np.asarray(scores, float), 1e-7, 1 - 1e-7)  # 0 and 1 have no logit
    out: np.ndarray = np.log(inside / (1 - inside))
    return out
