"""Detectors know the names they were fine-tuned on: asked for where none are given, compared with those given."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_runs import TRAIN_SCENES, train_arguments, write_coco

from deixis.data.formats import read_dataset
from deixis.errors import PromptError
from deixis.inference.detect.detector import load_detector
from deixis.models.model_record import ModelRecord, read_record, write_record
from deixis.recipes.detect.names import questions


@pytest.fixture
def fine_tuned(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "runs/x/teachers/grounding_dino")
    write_record(tmp_path / "runs/x/teachers/grounding_dino", ModelRecord(task="detector", names=("star", "raccoon")))
    return tmp_path / "runs/x"


@pytest.mark.parametrize(
    ("asked", "known", "said"),
    [
        (["racoon"], ["raccoon"], "racoon: did you mean raccoon?"),
        (["traffic lihgt", "cat"], ["traffic light", "dog"], "traffic lihgt: did you mean traffic light?"),
        (["Raccoons"], ["raccoon"], "Raccoons: did you mean raccoon?"),
        (["traffic_light"], ["traffic light"], "traffic_light: did you mean traffic light?"),
        (["zebra"], ["raccoon", "cat"], "fine-tuned on raccoon, cat, and on none of the names asked for"),
        (["Raccoon ", "zebra"], ["raccoon"], None),  # capitals make no other prompt, and a new name among known ones
        (["zebra"], [], None),  # a model of the hub
        ([], ["raccoon"], None),
    ],
)
def test_unknown_names_are_questioned(asked, known, said):
    lines = questions(asked, known)
    assert len(lines) == (said is not None)
    assert all(said in line for line in lines)


def test_predict_without_names_asks_for_the_stored_ones(deixis, fine_tuned, tmp_path):
    images = write_coco(tmp_path / "data", count=1).parent / "images"
    command = ["detect", "predict", "--model", fine_tuned, "--images", images, "--threshold", "0", "--output"]
    code, _, err = deixis([*command, tmp_path / "found"])
    assert code == 0, err
    (record,) = json.loads((tmp_path / "found/predictions.json").read_text())
    assert {found["label"] for found in record["objects"]} <= {"star", "raccoon"}
    code, _, err = deixis([*command, tmp_path / "misspelt", "--names", "racoon"])
    assert code == 0, err
    assert err.splitlines()[-1] == (
        "deixis: warning: racoon: did you mean raccoon? The model was fine-tuned on that name"
    )


def test_predict_without_any_names(deixis, tiny_model, tmp_path):
    images = write_coco(tmp_path / "data", count=1).parent / "images"
    code, _, err = deixis(["detect", "predict", "--model", tiny_model, "--images", images])
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"--names is required: {tiny_model} stores no names" in err


def test_predict_in_python(fine_tuned, tiny_model, tmp_path):
    image = next((write_coco(tmp_path / "data", count=1).parent / "images").iterdir())
    detector = load_detector(fine_tuned)
    assert detector.names == ("star", "raccoon")
    (found,) = detector.predict([image], threshold=0)
    assert found.names == ("star", "raccoon")
    with pytest.raises(PromptError, match="names is required"):
        load_detector(tiny_model).predict([image])


@pytest.mark.parametrize("more", [(), ("--lora", "--lora-rank", "2")], ids=["whole", "lora"])
def test_a_run_stores_its_names(deixis, tiny_model, tmp_path, more):
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more, "--no-report", "--max-steps", "1"))
    assert code == 0, err
    for place in (next((tmp_path / "detector/teachers").iterdir()), tmp_path / "detector/checkpoints/best"):
        record = read_record(place)
        assert record.task == "detector"
        assert record.names == read_dataset(TRAIN_SCENES).vocabulary.names
        assert (place / "README.md").is_file()


def test_export_without_names(deixis, fine_tuned, tmp_path):
    code, out, err = deixis(["model", "export", fine_tuned, "--output", tmp_path / "x.onnx", "--dry-run"])
    assert code == 0, err
    assert "star. raccoon." in out
