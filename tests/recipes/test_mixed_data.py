"""Boxes and sentences in one run, by weight, with denoising queries."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from tiny_runs import records, train_arguments, write_coco

COMPONENTS = {f"loss_{kind}{layer}" for kind in ("ce", "bbox", "giou") for layer in ("", "_0", "_enc", "_dn", "_dn_0")}


@pytest.fixture
def sentences(tmp_path):
    """An ODVG file of four captions; in each, one box has two phrases."""
    folder = tmp_path / "captions"
    folder.mkdir()
    lines = []
    for number in range(4):
        Image.new("RGB", (60, 40), (number * 40, 90, 200)).save(folder / f"{number}.jpg")
        regions = [
            {"bbox": [[2, 2, 20, 30], [30, 5, 50, 35]], "phrase": "two stars"},
            {"bbox": [30, 5, 50, 35], "phrase": "the red one"},
        ]
        content = {"caption": "two stars, the red one larger", "regions": regions}
        lines.append(json.dumps({"filename": f"{number}.jpg", "height": 40, "width": 60, "grounding": content}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder / "captions.jsonl"


def test_boxes_and_sentences_train_together(deixis, tiny_model, tmp_path, sentences):
    boxes = write_coco(tmp_path / "boxes")
    arguments = train_arguments(tiny_model, tmp_path / "runs", "--data", boxes, sentences, "--data-weights", "1", "3")
    more = ["--epoch-length", "8", "--epochs", "2", "--denoising-queries", "4", "--val-data", sentences, "--no-report"]
    code, out, err = deixis([*arguments, *more])
    assert code == 0, err
    assert "10 training and 4 validation images; 3 names: star, two stars, the red one" in out
    steps = records(tmp_path / "runs/detector", "step")
    assert [record["step"] for record in steps] == [0, 1, 2, 3]
    for record in steps:
        assert record.keys() >= COMPONENTS
        weights = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}
        assert record["loss"] == pytest.approx(sum(weights[n.split("_")[1]] * record[n] for n in COMPONENTS), rel=1e-5)
        assert record["loss_ce_dn"] > 0


def test_weights_that_do_not_fit_are_one_line(deixis, tiny_model, tmp_path, sentences):
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, "--data", sentences, sentences, "--data-weights", "1"))
    assert code == 2
    assert err.strip() == "deixis: error: --data-weights: expected one per data set (2), got 1.0"
