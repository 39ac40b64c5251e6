"""The active loop: it waits for people, resumes where it was, and ends; an annotator is simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TRAIN_SCENES, VAL_SCENES

from deixis.review import actions
from deixis.review.store import Store

QUICK = {
    "max_steps": 1,
    "baseline": False,
    "report": False,
    "num_workers": 0,
    "gpus": 0,
    "log_with": ["none"],
    "batch_size": 1,
    "val_loss_images": 0,
}


def arguments(tiny_model: Path, folder: Path, *more: str) -> list[str]:
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(QUICK))
    return [
        *("loop", TRAIN_SCENES, "--model", str(tiny_model), "--val-data", VAL_SCENES, "--per-round", "2"),
        *("--train-config", str(config), "--output", str(folder / "loop"), "--threshold", "0.9", *more),
    ]


@pytest.mark.slow
def test_a_simulated_loop_ends_and_resumes_from_any_step(deixis: Any, tiny_model: Path, tmp_path: Path) -> None:
    asked = arguments(tiny_model, tmp_path, "--simulate", "--order", "random", "--rounds")
    code, out, err = deixis([*asked, "1"])
    assert code == 0, err
    state = tmp_path / "loop" / "loop.json"
    (first,) = json.loads(state.read_text())["rounds"]
    assert (first["images"], first["boxes_drawn"] > 0) == (2, True)
    assert first["actions"]["finish"] == 2
    assert 0 <= first["AP"] <= 1
    state.write_text(json.dumps({**json.loads(state.read_text()), "rounds": []}))  # cut off before it was kept
    code, out, err = deixis([*asked, "2"])
    assert code == 0, err
    again, second = json.loads(state.read_text())["rounds"]
    assert again == first
    assert second["images"] == 4
    assert second["boxes_drawn"] > first["boxes_drawn"]
    assert "all 2 rounds are done" in out
    code, _, err = deixis([*asked, "2", "--per-round", "3"])
    assert code == 2
    assert "--per-round: got 3, but the loop in" in err


def test_a_loop_waits_for_people(deixis: Any, tiny_model: Path, tmp_path: Path) -> None:
    asked = arguments(tiny_model, tmp_path)
    code, out, err = deixis(asked)
    assert code == 0, err
    assert "round 1: review 2 more images with deixis review serve" in out
    with Store(tmp_path / "loop" / "review.db") as store:
        actions.finish_image(store, 5, version=1, annotator="ann")
    code, out, _ = deixis(asked)
    assert code == 0
    assert "round 1: review 1 more images" in out
    state = tmp_path / "loop" / "loop.json"
    sound = json.loads(state.read_text())
    for broken in ([], 3, {**sound, "options": [1]}, {**sound, "rounds": 3}, {**sound, "rounds": [3]}):
        state.write_text(json.dumps(broken))
        code, _, err = deixis(asked)
        assert code == 2
        assert "loop.json: cannot be read as a loop's state" in err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--simulate"], "--simulate needs --val-data"),
        ([], "missing: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(deixis: Any, tiny_model: Path, more: list[str], said: str) -> None:
    code, _, err = deixis(["loop", "missing", "--model", str(tiny_model), *more])
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
