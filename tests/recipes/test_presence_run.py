"""A run fits the presence threshold on its validation data; commands use it; `refer eval --fit-threshold` does both."""

from __future__ import annotations

import json
import shutil

import pytest
from refer_miniatures import plain
from tiny_refer_runs import refer_arguments, write_tiny_segmenter

from deixis.inference.refer.segmenter import load_segmenter
from deixis.models.model_record import read_record

VALIDATION = "scenes:split=refer_seen,count=12,seed=2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


@pytest.mark.slow
def test_a_run_fits_keeps_and_shows_the_threshold(model, tmp_path, deixis) -> None:
    code, out, err = deixis(
        refer_arguments(model, tmp_path, "--max-steps", "2", "--no-baseline", "--val-data", VALIDATION)
    )
    assert code == 0, err
    assert "presence threshold 0." in out
    assert "(phrases without an object left empty)" in out
    folder = tmp_path / "segmenter"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (best,) = [line for line in lines if line["kind"] == "evaluation"]
    fitted = best["presence_threshold"]
    assert read_record(folder / "teachers/sa2va").thresholds["presence"] == fitted
    assert load_segmenter(folder / "teachers/sa2va").threshold == fitted
    report = (folder / "report.html").read_text()
    assert "Presence threshold, %" in report
    assert "N_acc: the share of the phrases without an object whose mask is empty" in report
    # the figures of the run are those that its model gives to whoever measures it
    out_folder = tmp_path / "measured"
    measure = ["refer", "eval", "--model", str(folder / "teachers/sa2va"), "--data", VALIDATION, "--max-tiles", "1"]
    code, out, err = deixis([*measure, "--output", str(out_folder)])
    assert code == 0, err
    assert f"presence threshold {fitted:.3f} (the model's own)" in out
    found = json.loads((out_folder / "metrics.json").read_text())
    assert [found[name] for name in ("gIoU", "N_acc", "T_acc")] == pytest.approx(
        [best[name] for name in ("gIoU", "N_acc", "T_acc")], abs=0.02
    )
    shown = [best["presence_curve"][name][0] for name in ("N_acc", "T_acc")]  # at 0
    assert shown[0] < best["N_acc"]
    assert shown[1] >= best["T_acc"]


def test_eval_fits_on_its_data_and_stores_the_result(tmp_path, deixis) -> None:
    model = write_tiny_segmenter(tmp_path / "model", seed=3)
    command = ["refer", "eval", "--model", str(model), "--data", VALIDATION, "--max-tiles", "1"]
    code, out, err = deixis([*command, "--fit-threshold", "--output", str(tmp_path / "fitted")])
    assert code == 0, err
    assert "stored in" in out
    assert "at 0.5  N_acc" in out
    fitted = json.loads((tmp_path / "fitted/metrics.json").read_text())
    assert load_segmenter(model).threshold == fitted["presence_threshold"]
    assert len(fitted["presence_curve"]["gIoU"]) == len(fitted["presence_curve"]["threshold"]) == 51
    code, out, err = deixis([*command, "--output", str(tmp_path / "again")])
    assert code == 0, err
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert all(again[name] == fitted[name] for name in again)


@pytest.mark.parametrize("place", ["mine", "mine/teachers", "mine/teachers/sa2va"])
def test_the_place_of_a_fitted_threshold_is_that_of_the_model(place, model, tmp_path, deixis) -> None:
    teacher = tmp_path / "mine/teachers/sa2va"
    shutil.copytree(model, teacher)
    command = ["refer", "eval", "--model", place, "--data", VALIDATION, "--max-tiles", "1"]
    code, out, err = deixis([*command, "--fit-threshold"])
    assert code == 0, err
    assert "stored in mine/teachers/sa2va/deixis.json" in " ".join(out.split())
    assert read_record(teacher).thresholds


def test_data_without_absent_phrases_fits_nothing_and_says_so(model, tmp_path, deixis) -> None:
    square = [[4, 4, 30, 4, 30, 30, 4, 30]]
    data = plain(
        tmp_path / "data",
        [{"image": f"{x}.jpg", "expressions": [{"text": "a thing", "masks": [square]}]} for x in "ab"],
    )
    command = ["refer", "eval", "--model", str(model), "--data", str(data), "--max-tiles", "1", "--fit-threshold"]
    code, out, err = deixis(command)
    assert code == 0, err
    assert "presence threshold 0.500, not fitted: of 2 phrases 0 have no object" in out
    assert not read_record(model).thresholds


def test_a_model_that_answers_whatever_the_score_is_not_fitted(tmp_path, deixis) -> None:
    from small_segmenters import tiny_segmenter

    from deixis.models.sa2va import save_sa2va

    save_sa2va(tiny_segmenter(behaviour="sa2va"), tmp_path / "model")
    command = ["refer", "eval", "--model", str(tmp_path / "model"), "--data", VALIDATION, "--fit-threshold"]
    code, _, err = deixis(command)
    assert code == 2
    assert "--fit-threshold" in err
