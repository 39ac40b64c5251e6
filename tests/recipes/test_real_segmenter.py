"""Real photographs, class names as phrases, through every command of the segmenter."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


def data_of(name, root):
    """(training data, validation data or None, a picture, a phrase that is in it)."""
    if name == "fruits":
        folder = root / "fruits_nuts_labelme"
        return [folder], None, folder / "images" / "0.jpg", "the date"
    folder = root / "coco_cc_instances"
    training = [folder / "instances_coco_tiny_train2017.json", folder / "instances_tiny_coco_train.json"]
    picture = min((folder / "tiny_coco_val").glob("*.jpg"))
    return training, folder / "instances_tiny_coco_val.json", picture, "the person"


@pytest.mark.parametrize("name", ["coco", "fruits"])
def test_check_train_evaluate_predict_and_draw(shared_data, model, tmp_path, deixis, name):
    training, validation, picture, phrase = data_of(name, shared_data)
    code, out, _ = deixis(["refer", "check", "--data", *training, "--model", model, "--max-tiles", "1", "--no-decode"])
    assert code == 0, out
    words = refer_arguments(model, tmp_path, "--max-steps", "2", "--max-val-images", "2", "--max-masks", "3")
    at = words.index("--data")
    words[at : at + 4] = ["--data", *training, *(["--val-data", validation] if validation else [])]
    code, _, err = deixis(words)
    assert code == 0, err
    run = tmp_path / "segmenter"
    assert all(math.isfinite(step["loss"]) and step["loss_mask"] > 0 for step in records(run, "step"))
    assert {record["kind"] for record in records(run, "baseline", "evaluation")} == {"baseline", "evaluation"}
    assert "data:image" in (run / "report.html").read_text()

    teacher = run / "teachers/sa2va"
    found = tmp_path / "found"
    evaluated = validation or training[0]
    code, out, err = deixis(
        [
            "refer",
            "eval",
            "--model",
            teacher,
            "--data",
            evaluated,
            "--max-images",
            "1",
            "--max-tiles",
            "1",
            "--output",
            found,
        ]
    )
    assert code == 0, err
    assert json.loads((found / "metrics.json").read_text())["images"] == 1
    code, out, err = deixis(
        [
            *("refer", "predict", "--model", teacher, "--images", picture, "--phrases", phrase),
            *("--no-generate", "--max-tiles", "1", "--output", found),
        ]
    )
    assert code == 0, err
    (record,) = json.loads((found / "segmentations.json").read_text())
    drawn = np.asarray(Image.open(found / "pictures" / picture.name))
    mask = np.asarray(Image.open(found / record["phrases"][0]["mask"]))
    assert drawn.shape[:2] == mask.shape == np.asarray(Image.open(picture)).shape[:2]
