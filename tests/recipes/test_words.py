"""Several wordings for a class through the commands: tried, predicted with, trained with, and kept with the model."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
from tiny_runs import write_coco

from deixis.models.builtin import resolve_model
from deixis.models.model_record import ModelRecord, read_record, write_record
from deixis.options.detect_words import DetectWordsOptions
from deixis.recipes.detect.words import Found, try_words


def test_wordings_are_tried_without_training(deixis, tiny_model, tmp_path):
    data = write_coco(tmp_path / "data", count=2)
    command = ["detect", "words", "--model", tiny_model, "--data", data, "--output", tmp_path / "out", "--names"]
    code, out, err = deixis([*command, "star=star,five points,sun"])
    assert code == 0, err
    ranked = json.loads((tmp_path / "out/words.json").read_text())["star"]
    assert [one["AP"] for one in ranked] == sorted((one["AP"] for one in ranked), reverse=True)
    best = shlex.quote(f"star={','.join(ranked[0]['wordings'])}")
    words = ["star"], ["five points"], ["sun"], ["star", "five points", "sun"]
    assert sorted(one["wordings"] for one in ranked) == sorted(words)
    assert out.splitlines()[-1] == f"finds most: --names {best}"
    for names, message in (("star=a", "several wordings of a class"), ("moon=a,b", "no class 'moon' in")):
        code, _, err = deixis([*command, names])
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err


def test_the_wording_that_finds_most_is_named(monkeypatch, tiny_model, tmp_path):
    """With figures of which the best is known."""
    data = write_coco(tmp_path / "data", count=1)
    best = {"star": 0.2, "sun": 0.7, "star,sun": 0.6}

    def measure(detector, dataset, wordings, **_):
        asked = [("star",), ("sun",), ("star", "sun")]
        found = [Found("star", words, best[",".join(words)], 0.5, 0.5) for words in asked]
        return {"star": sorted(found, key=lambda one: -one.AP)}

    monkeypatch.setattr("deixis.recipes.detect.words.measure_words", measure)
    options = DetectWordsOptions(model=str(tiny_model), data=str(data), names=("star=star,sun",))
    assert try_words(options)["star"][0].wordings == ("sun",)


def test_predictions_know_the_class_alone(deixis, tiny_model, tmp_path):
    images = write_coco(tmp_path / "data", count=1).parent / "images"
    command = ["detect", "predict", "--model", tiny_model, "--images", images, "--threshold", "0", "--output"]
    (tmp_path / "names.txt").write_text("star=star,sun\na.b\nx\\=y\n")
    code, out, err = deixis([*command, tmp_path / "found", "--names-file", tmp_path / "names.txt"])
    assert code == 0, err
    (record,) = json.loads((tmp_path / "found/predictions.json").read_text())
    assert {found["label"] for found in record["objects"]} <= {"star", "a.b", "x=y"}
    assert "'star' is asked for as 'star', 'sun'" in out


@pytest.mark.parametrize("form", ["flag", "record"])
def test_what_is_chosen_is_trained_with_and_kept(deixis, tiny_model, tmp_path, form):
    """Wordings, a threshold that nothing reaches, a calibration, sinks."""
    data, model = write_coco(tmp_path / "data", count=6), tmp_path / "base"
    shutil.copytree(tiny_model, model)
    names = ["--names", "star=star,sun"] if form == "flag" else []
    if form == "record":
        write_record(model, ModelRecord(wordings={"star": ["star", "sun"], "other": ["thing"]}))
    chosen = ["--sinks", "2", "--calibrate", "--threshold-for", "precision=0.99"]
    run = f"detect train --data {data} --model {model} --max-steps 1 --output run --gpus 0 --num-workers 0".split()
    quick = ["--report-images", "0", "--val-loss-images", "0", "--log-with", "none", "--no-baseline", "--no-report"]
    code, out, err = deixis([*run, *quick, *names, *chosen])
    assert code == 0, err
    assert "'star' is asked for as 'star', 'sun'" in out
    record = read_record(tmp_path / "run/teachers/grounding_dino")
    assert (record.names, record.wordings) == (("star",), {"star": ["star", "sun"]})
    assert "sinks   2 of kind" in out
    assert record.sinks["tried"] == 2
    files = {file.name for file in (tmp_path / "run/teachers/grounding_dino").iterdir()}
    assert ("sinks.safetensors" in files) == (record.sinks["count"] == 2)
    assert ("score" in record.thresholds) != ("no threshold: from no score on are 99 %" in out)


def test_eval_updates_the_model(deixis, tmp_path):
    shutil.copytree(resolve_model("builtin"), tmp_path / "model")
    measure = ["detect", "eval", "--data", "scenes:split=demo_val,count=8,seed=2", "--update-model", "--try-sinks", "2"]
    output = ["--output", tmp_path / "out"]
    code, out, err = deixis([*measure, "--model", tmp_path / "model", "--threshold-for", "precision=0.1", *output])
    assert code == 0, err
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"metrics.json", "coco_results.json", "report.html"}
    assert "<h2>Worst mistakes</h2>" in (tmp_path / "out/report.html").read_text()
    assert f"updated {tmp_path / 'model/deixis.json'}" in out
    record = read_record(tmp_path / "model")
    assert 0 < record.thresholds["score"] < 0.9
    assert (record.sinks["tried"], record.sinks["images"]) == (2, 8)
    code, _, err = deixis([*measure, "--model", "builtin"])
    assert code == 2
    assert "--update-model: builtin is no folder" in err
