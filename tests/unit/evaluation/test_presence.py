"""The presence threshold: fitted by hand-worked cases and by trying every cut, kept with the model, used by default."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter

from deixis.errors import DeixisError, ModelError, OptionError
from deixis.evaluation.presence import KEPT_LEAD, MIN_PHRASES, PresenceScores, emptied_below, presence_scores
from deixis.evaluation.refer_iou import evaluate_segmentations
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.models.model_record import read_record, update_record
from deixis.models.sa2va import load_sa2va, save_sa2va
from deixis.options.refer_eval import ReferEvalOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.recipes.refer.presence import every_mask_shown, last_threshold, threshold_line
from deixis.refer_records import Expression, ReferSample, Segmentation

SIZE = (8, 8)


def rle(columns: int):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, :columns] = 1
    return coco_mask.encode(np.asfortranarray(mask))


def scores(absent: list[float], there: list[float], iou: float = 0.5) -> PresenceScores:
    meant = np.array([False] * len(absent) + [True] * len(there), bool)
    return PresenceScores(np.array([*absent, *there], float), np.where(meant, iou, 0.0), meant)


def test_the_cut_lies_in_the_middle_of_the_gap_between_the_two_kinds() -> None:
    assert scores([0.1, 0.2, 0.6], [0.8, 0.9, 0.99]).best_threshold() == pytest.approx(0.7)


PROBABILITIES = st.lists(st.sampled_from([-1, 0, 0.2, 0.3, 0.5, 0.5, 0.7, 0.9, 1]), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(PROBABILITIES, PROBABILITIES, st.floats(0.05, 1))
def test_no_other_threshold_is_better(absent: list[float], there: list[float], iou: float) -> None:
    """By trying many: the best gIoU of those that tell the two kinds apart almost as well as the best does."""
    found = scores(absent, there, iou)
    tried = [*np.linspace(0.001, 0.999, 500), found.best_threshold()]
    rows = []
    for t in tried:
        empty, shown = [p < t for p in absent], [p >= t for p in there]
        lead = (np.mean(empty) + np.mean(shown)) / 2 - 0.5
        rows.append((lead, (sum(empty) + iou * sum(shown)) / (len(absent) + len(there))))
    best = max(lead for lead, _ in rows)
    least = best - (1 - KEPT_LEAD) * abs(best) - 1e-9
    allowed = [giou for lead, giou in rows if lead >= least]
    assert rows[-1][0] >= least
    assert rows[-1][1] == pytest.approx(max(allowed))
    assert 0 < found.best_threshold() < 1


def test_poor_masks_do_not_make_silence_the_best_answer() -> None:
    """With IoUs of 0.05 the gIoU is largest where everything is left empty."""
    found = scores([0.1, 0.3, 0.6, 0.85] * 3, [0.5, 0.7, 0.8, 0.9] * 6, iou=0.05)
    curve = found.curve((found.best_threshold(), 1.0))
    assert curve.giou[1] > curve.giou[0]
    assert curve.t_acc[0] >= 0.75
    assert curve.n_acc[0] >= 0.75


def test_the_curve_is_what_the_evaluation_gives_at_each_threshold() -> None:
    rng = np.random.default_rng(0)
    sample, answers = sample_and_answers(rng, 60)
    curve = presence_scores([sample], [answers]).curve((0.0, 0.25, 0.5, 0.75, 1.0))
    for i, threshold in enumerate(curve.thresholds):
        metrics = evaluate_segmentations([sample], [emptied_below(answers, threshold)])
        assert metrics.absent_accuracy == pytest.approx(curve.n_acc[i])
        assert metrics.present_accuracy == pytest.approx(curve.t_acc[i])
        assert metrics.giou == pytest.approx(curve.giou[i])
    assert len({round(value, 6) for value in curve.giou}) > 3


def sample_and_answers(rng: np.random.Generator, count: int) -> tuple[ReferSample, list[Segmentation]]:
    """Phrases with and without an object; answers of all probabilities, some with empty masks."""
    expressions = [Expression((f"thing {i}",), (rle(4),) if rng.random() < 0.5 else ()) for i in range(count)]
    sample = ReferSample(np.zeros((*SIZE, 3), np.uint8), SIZE, tuple(expressions))
    answers = [Segmentation(f"thing {i}", rle(int(rng.integers(0, 8))), 0.5, float(rng.random())) for i in range(count)]
    return sample, answers


def test_an_empty_mask_is_empty_at_every_threshold() -> None:
    sample = ReferSample(
        np.zeros((*SIZE, 3), np.uint8), SIZE, (Expression(("a",), (rle(4),)), Expression(("b",), ()))
    )  # fmt: skip
    found = presence_scores([sample], [[Segmentation("a", rle(0), 0.5, 0.9), Segmentation("b", rle(0), 0.5, 0.95)]])
    curve = found.curve((0.0, 0.5))
    assert (curve.t_acc, curve.n_acc, curve.giou) == ((0, 0), (1, 1), (0.5, 0.5))


@pytest.mark.parametrize(("absent", "there"), [(0, 100), (MIN_PHRASES - 1, 100), (100, 3), (0, 0)])
def test_too_few_of_either_kind_fit_nothing(absent: int, there: int) -> None:
    found = scores([0.5] * absent, [0.6] * there)
    assert f"{absent} phrases without an object and {there} with" in found.why_not_fitted()
    assert not scores([0.5] * MIN_PHRASES, [0.6] * MIN_PHRASES).why_not_fitted()
    line = threshold_line({"phrases": absent + there, "by_sizes": {"absent": {"phrases": absent}}}, 0.5)
    assert f"of {absent + there} phrases {absent} have no object" in line


def test_the_threshold_stays_with_the_model(tmp_path) -> None:
    bundle = tiny_segmenter()
    save_sa2va(bundle, tmp_path / "plain")
    assert load_segmenter(tmp_path / "plain").threshold == 0.5
    save_sa2va(bundle.with_presence_threshold(0.83), tmp_path / "fitted")
    assert load_segmenter(tmp_path / "fitted").threshold == 0.83
    assert load_segmenter(tmp_path / "fitted", threshold=0.2).threshold == 0.2
    assert Segmenter(load_sa2va(tmp_path / "fitted"), threshold=0.0).threshold == 0.0
    update_record(tmp_path / "fitted", domain="generated", thresholds={"other": 0.1})
    save_sa2va(load_sa2va(tmp_path / "fitted"), tmp_path / "fitted")  # what others keep there stays
    record = read_record(tmp_path / "fitted")
    assert (record.domain, dict(record.thresholds)) == ("generated", {"presence": 0.83, "other": 0.1})


@pytest.mark.parametrize("value", [-0.1, 1.5, 80])
def test_a_threshold_that_is_no_probability_names_the_file(tmp_path, value: float) -> None:
    save_sa2va(tiny_segmenter(), tmp_path / "model")
    update_record(tmp_path / "model", thresholds={"presence": value})
    with pytest.raises(ModelError, match=r"deixis\.json: thresholds\.presence is"):
        load_segmenter(tmp_path / "model")


@pytest.mark.parametrize(
    "options",
    [
        ReferEvalOptions(data=("x.json",), model="m"),
        ReferPredictOptions(images=(Path("a.jpg"),), phrases=("a",), model="m"),
    ],
)
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_options_take_probabilities_alone(options: Any, value: float) -> None:
    assert options.threshold is None
    replace(options, threshold=1.0).check()
    with pytest.raises(OptionError, match="--threshold"):
        replace(options, threshold=value).check()


@pytest.mark.parametrize(
    ("more", "flag"),
    [({"threshold": 0.5}, "--threshold"), ({"generate": True}, "--generate"), ({"model": "builtin"}, "--model")],
)
def test_fitting_refuses_what_it_cannot_keep(tmp_path, more: dict, flag: str) -> None:
    ReferEvalOptions(data=("x.json",), model=str(tmp_path), fit_threshold=True).check()
    with pytest.raises(DeixisError, match=flag):
        ReferEvalOptions(**{"data": ("x.json",), "model": str(tmp_path), "fit_threshold": True, **more}).check()


def test_showing_every_mask_is_undone_by_an_error_too() -> None:
    segmenter = Segmenter(tiny_segmenter(), threshold=0.7)

    def interrupted() -> None:
        with every_mask_shown(segmenter):
            assert segmenter.threshold == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert segmenter.threshold == 0.7


def test_a_resumed_run_goes_on_with_its_last_threshold(tmp_path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert last_threshold(log, 0.4) == 0.4
    records = [{"kind": "baseline", "presence_threshold": 0.6}, {"kind": "step"}, {"kind": "evaluation"}]
    log.write_text("".join(json.dumps(record | {"step": 0}) + "\n" for record in records))
    assert last_threshold(log, 0.4) == 0.6
