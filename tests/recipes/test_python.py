"""`deixis.train` and `deixis.evaluate`: the commands as calls."""

from __future__ import annotations

import json

import pytest
import tiny_refer_runs
from local_hub import use_local_hub
from tiny_runs import TRAIN_SCENES, VAL_SCENES

import deixis
from deixis.errors import OptionError
from deixis.recipes.python import task_of


def test_a_detector_is_trained_and_measured(tiny_model, tmp_path):
    where = {"output": str(tmp_path), "experiment_name": "mine", "report": False}
    result = deixis.train(
        TRAIN_SCENES, tiny_model, val_data=VAL_SCENES, max_steps=1, num_workers=0, gpus=0, baseline=False, **where
    )
    assert result.teacher == tmp_path / "mine/teachers/grounding_dino"
    kept = json.loads((tmp_path / "mine/result.json").read_text())["best"]["validation"]
    by_run = deixis.evaluate(tmp_path / "mine", VAL_SCENES, device="cpu")
    assert pytest.approx(kept["AP"]) == by_run.AP
    assert by_run.images == kept["images"] == 4
    loaded = deixis.load_detector(result.teacher, "cpu")
    assert deixis.evaluate(loaded, deixis.read_dataset(VAL_SCENES), max_images=2).images == 2


def test_a_segmenter_is_measured(tmp_path):
    folder = tiny_refer_runs.write_tiny_segmenter(tmp_path / "model")
    measured = deixis.evaluate(folder, tiny_refer_runs.VAL_SCENES, max_images=2, device="cpu").as_dict()
    assert 0 <= measured["gIoU"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 1}, "unknown key 'epoch'; the nearest valid key is 'epochs'"),
        ({"gpus": 2}, "run deixis detect train --gpus, or torchrun"),
    ],
)
def test_wrong_options_are_one_line(tiny_model, options, message):
    with pytest.raises(OptionError, match=message) as caught:
        deixis.train(TRAIN_SCENES, tiny_model, **options)
    assert "\n" not in str(caught.value)


def test_the_task_of_a_model_on_the_hub_is_what_its_files_say(tmp_path, monkeypatch):
    files = {
        "me/finder": ("config.json", {"model_type": "deixis_sa2va"}),
        "me/sa2va-boxes": ("config.json", {"model_type": "mm-grounding-dino"}),
        "me/masks-lora": ("deixis.json", {"version": 1, "task": "segmenter"}),
        "me/sa2va-none": ("model.safetensors", {}),
    }
    for name, (file, values) in files.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text(json.dumps(values))
    use_local_hub(monkeypatch, tmp_path / "cache", {name: tmp_path / name for name in files})
    found = [task_of(name, "labels.json") for name in files]
    assert found == ["segmenter", "detector", "segmenter", "segmenter"]
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "weights are for the loader to download"
    # where nothing can be downloaded the name decides, and the loader reports it
    assert [task_of(name, "labels.json") for name in ("you/sa2va", "you/other")] == ["segmenter", "detector"]
