"""Whole runs that describe masks: training in both directions, captions, the loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter

from deixis.recipes.run.outputs import warn_once


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR has tests of its own; each evaluation here would take 10 s longer."""
    monkeypatch.setattr("deixis.evaluation.meteor._meteor_jar", lambda: None)
    monkeypatch.setattr("deixis.evaluation.meteor._nltk_scorer", lambda: None)
    warn_once.cache_clear()


def test_a_run_learns_both_directions_in_the_same_batches(model, tmp_path, deixis) -> None:
    more = ("--caption-share", "0.5", "--max-steps", "3", "--batch-size", "4")
    code, out, err = deixis(refer_arguments(model, tmp_path, *more))
    assert code == 0, err
    assert "CIDEr before" in out
    lines = [json.loads(line) for line in (tmp_path / "segmenter/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert all(line["loss_language"] > 0 for line in steps)
    assert any(line["loss_mask"] > 0 for line in steps)
    measured = [line for line in lines if line["kind"] in ("baseline", "evaluation")]
    assert len(measured) == 2
    assert all({"gIoU", "CIDEr", "exact"} <= set(line) for line in measured)
    assert not any("METEOR" in line for line in measured)
    assert err.count("METEOR is not measured: it needs Java") == 1
    assert '<div class="name">METEOR</div>' not in (tmp_path / "segmenter/report.html").read_text()
    before, after = (
        load_file(Path(folder) / "vlm/model.safetensors") for folder in (model, tmp_path / "segmenter/teachers/sa2va")
    )
    name = next(key for key in before if key.endswith("embed_tokens.weight"))
    from deixis.inference.refer.segmenter import load_segmenter

    tokenizer = load_segmenter(model).bundle.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["[SEG]", "<vp>", "</vp>"])
    assert all(not torch.equal(before[name][mark], after[name][mark]) for mark in marks)


@pytest.mark.slow
def test_features_are_kept_once_an_image_whatever_is_described(model, tmp_path, deixis) -> None:
    """Close views differ from epoch to epoch; the losses are those without a cache, up to rounding."""
    common = ("--caption-share", "1", "--epochs", "2", "--no-baseline", "--no-report", "--lora-dropout", "0")
    lines = {}
    for name, more in {"plain": (), "kept": ("--cache-features", str(tmp_path / "seen"))}.items():
        code, _, err = deixis(refer_arguments(model, tmp_path, *common, *more, "--experiment-name", name))
        assert code == 0, err
        text = (tmp_path / name / "metrics.jsonl").read_text()
        lines[name] = [json.loads(line) for line in text.splitlines()]
    losses = {name: [line["loss"] for line in found if line["kind"] == "step"] for name, found in lines.items()}
    assert losses["kept"] == pytest.approx(losses["plain"], rel=1e-4)
    assert len(list((tmp_path / "seen").rglob("*.safetensors"))) == 8


def test_captions_of_nothing_are_refused(model, tmp_path, deixis) -> None:
    from refer_miniatures import LEFT, plain

    data = plain(tmp_path / "data", [{"image": f"{x}.jpg", "expressions": [{"masks": [[LEFT]]}]} for x in "ab"])
    code, _, err = deixis(
        ["refer", "train", "--data", str(data), "--model", str(model), "--output", str(tmp_path), "--gpus", "0",
         "--caption-share", "1"]
    )  # fmt: skip
    assert code == 2
    assert "none of its 2 images has a sentence" in err


def test_caption_writes_what_train_reads(model, tmp_path, deixis) -> None:
    from refer_miniatures import coco

    from deixis.data.refer_formats import read_refer

    data = coco(tmp_path / "data")
    code, out, err = deixis(
        ["refer", "caption", "--model", str(model), "--masks", str(data), "--output", str(tmp_path / "out"),
         "--max-tiles", "2", "--max-new-tokens", "5", "--temperature", "0.5"]
    )  # fmt: skip
    assert code == 0, err
    assert "regions described in" in out
    entries = json.loads((tmp_path / "out/captions.json").read_text())
    assert [len(entry["expressions"]) for entry in entries] == [3, 2]  # a crowd is a region too
    assert all(e["score"] < 0 for entry in entries for e in entry["expressions"])
    captions = read_refer(tmp_path / "out/captions.json")
    assert captions[0].image.samefile(tmp_path / "data/1.jpg")
    assert (tmp_path / "out/pictures/1.jpg").exists()


def test_captions_of_scenes_are_measured(model, tmp_path, deixis) -> None:
    code, out, err = deixis(
        ["refer", "caption", "--model", str(model), "--masks", "scenes:split=refer_seen,count=2,seed=2", "--measure",
         "--output", str(tmp_path), "--max-new-tokens", "4", "--no-pictures"]
    )  # fmt: skip
    assert code == 0, err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"CIDEr", "exact", "colour_named", "size_named", "by_sizes", "described"} <= set(metrics)
    assert "METEOR" not in metrics
    assert "METEOR is not measured: it needs Java" in out
    assert "colour" in out


@pytest.mark.slow
def test_a_measured_meteor_is_reported_under_its_name(model, tmp_path, deixis, monkeypatch) -> None:
    monkeypatch.setattr("deixis.evaluation.meteor._nltk_scorer", lambda: lambda references, said: 0.25)
    code, out, err = deixis(
        ["refer", "caption", "--model", str(model), "--masks", "scenes:split=refer_seen,count=1,seed=2", "--measure",
         "--output", str(tmp_path), "--max-new-tokens", "4", "--no-pictures"]
    )  # fmt: skip
    assert code == 0, err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["NLTK METEOR"] <= 0.25
    assert "METEOR" not in metrics
    assert "NLTK METEOR 0.2" in out or "NLTK METEOR 0.0" in out
    code, out, err = deixis(refer_arguments(model, tmp_path, "--caption-share", "0.5", "--max-steps", "1"))
    assert code == 0, err
    assert '<div class="name">NLTK METEOR</div>' in (tmp_path / "segmenter/report.html").read_text()


def cycle_arguments(model, masks, output, *more):
    return ["refer", "cycle", "--model", str(model), "--masks", str(masks), "--output", str(output),
            "--max-new-tokens", "4", "--max-tiles", "1", *more]  # fmt: skip


def test_an_interrupted_cycle_goes_on_and_ends_the_same(model, tmp_path, deixis) -> None:
    from refer_miniatures import sa1b

    from deixis.inference.refer.cycle import Cycle

    data = sa1b(tmp_path / "sa1b")
    more = ("--threshold", "0", "--candidates", "2")
    code, out, err = deixis(cycle_arguments(model, data, tmp_path / "whole", *more))
    assert code == 0, err
    assert "6 regions" in out
    run = Cycle.run

    def stopping(self, *arguments):
        for number, item in enumerate(run(self, *arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cycle, "run", stopping)
        assert deixis(cycle_arguments(model, data, tmp_path / "parts", *more))[0] == 130
    assert not (tmp_path / "parts/captions.json").exists()
    code, out, err = deixis(cycle_arguments(model, data, tmp_path / "parts", *more))
    assert code == 0, err
    assert "resuming at image 3 of 3" in out
    for name in ("cycle.jsonl", "captions.json", "metrics.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    again = json.loads((tmp_path / "whole/captions.json").read_text())
    assert sum(len(entry["expressions"]) for entry in again) == 6
    code, _, err = deixis(cycle_arguments(model, data, tmp_path / "parts", "--candidates", "3"))
    assert code == 2
    assert "made with candidates 2, now it is 3" in err
    code, out, err = deixis(
        ["refer", "train", "--data", str(tmp_path / "whole/captions.json"), "--model", str(model), "--lora-r", "2",
         "--output", str(tmp_path / "runs"), "--gpus", "0", "--num-workers", "0", "--max-steps", "1",
         "--max-tiles", "1", "--caption-share", "0.5", "--no-baseline", "--no-report"]
    )  # fmt: skip
    assert code == 0, err


def test_cycle_reads_open_images_and_scenes(model, tmp_path, deixis) -> None:
    from refer_miniatures import open_images

    code, out, err = deixis(cycle_arguments(model, open_images(tmp_path / "oi"), tmp_path / "a", "--threshold", "0"))
    assert code == 0, err
    assert "4 regions" in out
    scenes = "scenes:split=refer_seen,count=1,seed=2"
    code, out, err = deixis(cycle_arguments(model, scenes, tmp_path / "b", "--threshold", "0"))
    assert code == 0, err
    metrics = json.loads((tmp_path / "b/metrics.json").read_text())
    assert {"cycle_IoU", "direct_IoU", "exact", "by_threshold"} <= set(metrics)
    assert (tmp_path / "b/images/000000.png").exists()
