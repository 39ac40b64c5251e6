"""Whole runs that describe masks: training in both directions, captions, the loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


def test_a_run_learns_both_directions_in_the_same_batches(model, tmp_path, deixis) -> None:
    more = ("--caption-share", "0.5", "--max-steps", "3", "--no-baseline", "--no-report", "--batch-size", "4")
    code, _, err = deixis(refer_arguments(model, tmp_path, *more))
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "segmenter/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert all(line["loss_language"] > 0 for line in steps)
    assert any(line["loss_mask"] > 0 for line in steps)
    before, after = (
        load_file(Path(folder) / "vlm/model.safetensors") for folder in (model, tmp_path / "segmenter/teachers/sa2va")
    )
    name = next(key for key in before if key.endswith("embed_tokens.weight"))
    from deixis.inference.segmenter import load_segmenter

    tokenizer = load_segmenter(model).bundle.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["[SEG]", "<vp>", "</vp>"])
    assert all(not torch.equal(before[name][mark], after[name][mark]) for mark in marks)


def test_captions_of_nothing_are_refused(model, tmp_path, deixis) -> None:
    from refer_miniatures import LEFT, plain

    data = plain(tmp_path / "data", [{"image": f"{x}.jpg", "expressions": [{"masks": [[LEFT]]}]} for x in "ab"])
    code, _, err = deixis(
        ["refer", "train", "--data", str(data), "--model", str(model), "--output", str(tmp_path), "--gpus", "0",
         "--caption-share", "1"]
    )  # fmt: skip
    assert code == 2
    assert "--caption-share needs masks with phrases" in err
