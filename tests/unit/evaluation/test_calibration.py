"""Scores that mean what they say, and thresholds for a wanted precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deixis.errors import OptionError
from deixis.evaluation.calibration import calibrated, calibration_error, fit_calibration, reliability
from deixis.evaluation.thresholds import SCORES, Counts, pooled, threshold_for_precision
from deixis.options.checks import wanted_precision
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.run.result import chosen_scores


def counts_of(scores: np.ndarray, right: np.ndarray) -> Counts:
    return Counts(int(right.sum()) + 5, scores[right], scores[~right])


def shown_too_low(count: int = 20_000) -> Counts:
    """Detections whose chance to be right is sigmoid(logit(score) / 0.5 + 1)."""
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.06, 0.9, count)
    chance = calibrated(scores, {"temperature": 0.5, "shift": 1.0})
    return counts_of(scores, rng.random(count) < chance)


def test_a_known_distortion_is_found_and_mended():
    counts = shown_too_low()
    found = fit_calibration(counts)
    assert found["temperature"] == pytest.approx(0.5, abs=0.03)
    assert found["shift"] == pytest.approx(1.0, abs=0.06)
    assert calibration_error(counts) > 0.1
    assert calibration_error(counts, found) < 0.02


def test_the_order_of_scores_stays():
    scores = np.linspace(0, 1, 50)
    moved = calibrated(scores, {"temperature": 3.0, "shift": -2.0})
    assert (np.diff(moved)[1:-1] > 0).all()
    assert ((moved >= 0) & (moved <= 1)).all()
    assert calibrated(scores, {}) is scores


@pytest.mark.parametrize(("right", "wrong"), [(5, 100), (100, 0), (0, 0)])
def test_too_little_is_not_fitted(right, wrong):
    assert fit_calibration(Counts(right, np.full(right, 0.5), np.full(wrong, 0.4))) == {}


def test_the_error_by_hand():
    """Two bins: eight of ten right at 0.5; none of ten at 0.2."""
    counts = Counts(8, np.full(8, 0.5), np.concatenate([np.full(2, 0.5), np.full(10, 0.2)]))
    assert reliability(counts) == [(pytest.approx(0.2), 0.0, 10), (pytest.approx(0.5), 0.8, 10)]
    assert calibration_error(counts) == pytest.approx((0.2 + 0.3) / 2)
    assert math.isnan(calibration_error(Counts(1, np.zeros(0), np.full(9, 0.01))))  # nobody sees these


@pytest.mark.parametrize("wanted", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_no_lower_threshold_has_the_wanted_precision(seed, wanted):
    rng = np.random.default_rng(seed)
    scores = rng.random(300)
    counts = counts_of(scores, rng.random(300) < scores)
    found = threshold_for_precision(counts, wanted)
    shares = [len(counts.right_scores[counts.right_scores >= t]) / max((scores >= t).sum(), 1) for t in SCORES]
    good = SCORES[np.asarray(shares) >= wanted]
    assert found == good[0]


def test_a_precision_that_no_score_has():
    assert math.isnan(threshold_for_precision(Counts(3, np.zeros(0), np.full(4, 0.9)), 0.5))
    assert pooled([]).objects == 0


@pytest.mark.parametrize("text", ["", "f2", "precision", "precision=", "precision=0", "precision=1.1", "precision=x"])
@pytest.mark.parametrize("kind", [DetectTrainOptions, DetectEvalOptions])
def test_what_thresholds_are_chosen_for_is_checked(kind, text):
    with pytest.raises(OptionError, match="--threshold-for: expected f1, or precision=SHARE"):
        kind(data="scenes:split=demo_val,count=1,seed=1", threshold_for=text).check()
    assert wanted_precision("Precision=0.5") == 0.5


def test_thresholds_are_kept_on_the_scale_of_the_scores():
    metrics = {"threshold": 0.4, "boxes": 50, "class_thresholds": {"a": 0.2}}
    metrics["calibration"] = {"temperature": 0.5, "shift": 1.0}
    plain = {"thresholds": {"score": 0.4}, "class_thresholds": {"a": 0.2}}
    assert chosen_scores(metrics, calibrate=False) == plain
    kept = chosen_scores(metrics, calibrate=True)
    moved = calibrated(np.array([0.4, 0.2]), metrics["calibration"]).tolist()
    assert [kept["thresholds"]["score"], kept["class_thresholds"]["a"]] == pytest.approx(moved, abs=1e-6)
    assert kept["calibration"] == metrics["calibration"]
    assert chosen_scores({"threshold": 0.4, "boxes": 9}, calibrate=False)["thresholds"] == {}
