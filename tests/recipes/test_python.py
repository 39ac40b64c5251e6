"""`deixis.train` and `deixis.evaluate`: the commands as calls."""

from __future__ import annotations

import json

import pytest
import tiny_refer_runs
from tiny_runs import TRAIN_SCENES, VAL_SCENES

import deixis
from deixis.errors import OptionError


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
