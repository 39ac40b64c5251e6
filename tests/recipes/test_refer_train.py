"""Whole runs of the segmenter's commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_refer_runs import TRAIN_SCENES, VAL_SCENES, refer_arguments, write_tiny_segmenter

from deixis.errors import OptionError, TrainingError
from deixis.inference.refer.segmenter import load_segmenter
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.refer import train as recipe
from deixis.recipes.run import training as run_training

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """The folder of a run of two epochs."""
    from deixis.cli.main import main

    output = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit) as stopped:
        main(refer_arguments(model, output, "--epochs", "2"))
    assert stopped.value.code == 0
    return output / "segmenter"


def weights(folder):
    return {
        f"{part}.{name}": tensor
        for part in ("vlm", "sam")
        for name, tensor in load_file(folder / part / "model.safetensors").items()
    } | load_file(folder / "text_hidden_fcs.safetensors")


def test_a_run_leaves_all_that_it_promises(run) -> None:
    for name in ("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints/last", "teachers/sa2va", "report.html"):
        assert (run / name).exists(), name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(steps) == 8
    names = {"loss", "loss_mask", "loss_dice", "loss_iou", "loss_object", "loss_language", "iou", "grad_norm"}
    assert names <= set(steps[0])
    evaluations = [line for line in lines if line["kind"] in ("baseline", "evaluation")]
    assert all({"gIoU", "cIoU", "by_tags", "by_words", "by_sizes"} <= set(line) for line in evaluations)
    assert "<svg" in (run / "report.html").read_text()


def test_only_what_should_train_has_changed(run, model) -> None:
    before, after = weights(model), weights(run / "teachers/sa2va")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed)  # merged adapters
    assert any("mask_decoder" in name for name in changed)
    assert any(name.startswith("0.") for name in changed)  # text_hidden_fcs
    assert not any("vision_tower" in name or "vision_encoder" in name for name in changed)
    name = "vlm.language_model.model.embed_tokens.weight"
    rows = before[name], after[name]
    moved = (rows[0] != rows[1]).any(1).nonzero()[:, 0].tolist()
    segmenter = load_segmenter(model)
    new = segmenter.bundle.tokenizer.convert_tokens_to_ids(["[SEG]", "<p>", "</p>", "<vp>", "</vp>"])
    assert segmenter.bundle.seg_token_id in moved
    assert set(moved) <= set(new)


def test_a_resumed_run_ends_with_the_same_weights(run, model, tmp_path, deixis) -> None:
    arguments = refer_arguments(model, tmp_path, "--epochs", "2", "--save-interval", "1")
    stop_in_second_epoch(arguments, deixis)
    code, _, err = deixis([*arguments, "--resume"])
    assert code == 0, err
    mine, theirs = weights(tmp_path / "segmenter/teachers/sa2va"), weights(run / "teachers/sa2va")
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.slow
def test_a_resumed_run_of_all_parts_ends_as_the_whole_one(model, tmp_path, deixis) -> None:
    """Everything trains; resumed in the sixth of eight steps, it ends as the run that was not stopped."""
    more = ("--epochs", "2", "--no-lora", "--train-embeddings")
    more += ("--train", "vision", "text_hidden_fcs", "mask_decoder")
    found = []
    for folder, stopped in ((tmp_path / "whole", False), (tmp_path / "stopped", True)):
        arguments = refer_arguments(model, folder, *more, "--save-interval", "1", "--no-report", "--no-baseline")
        if stopped:
            stop_in_second_epoch(arguments, deixis)
        code, _, err = deixis([*arguments, *(["--resume"] if stopped else [])])
        assert code == 0, err
        lines = [json.loads(line) for line in (folder / "segmenter/metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if line["kind"] == "step"]
        assert len(steps) == 8
        found.append((steps, weights(folder / "segmenter/teachers/sa2va")))
    assert [s["loss"] for s in found[0][0]] == [s["loss"] for s in found[1][0]]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


@pytest.mark.parametrize(
    ("name", "unchanged", "value"),
    [
        ("encoder_lr_factor", 1.0, 0.5),
        ("words_first", 0.0, 0.5),
        ("points_first", False, True),
        ("spatial_tokens", False, True),
        ("supervised_masks", "best", "all"),
    ],
)
def test_options_that_were_removed_say_what_replaced_them(deixis, tmp_path, name, unchanged, value) -> None:
    assert not hasattr(ReferTrainOptions(data=(TRAIN_SCENES,), **{name: unchanged}), name)  # files of earlier runs
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} was removed"):
        ReferTrainOptions(data=(TRAIN_SCENES,), **{name: value})
    code, _, err = deixis(["refer", "train", "--data", TRAIN_SCENES, f"--{name.replace('_', '-')}"])
    assert code == 2
    assert f"--{name.replace('_', '-')} was removed; " in err


def stop_in_second_epoch(arguments, deixis) -> None:
    whole = run_training.train

    def stopping(task, run):
        groups = task.groups

        def cut(epoch, start):
            for number, group in enumerate(groups(epoch, start)):
                if epoch == 1 and number == 1:
                    raise KeyboardInterrupt
                yield group

        task.groups = cut
        return whole(task, run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_training, "train", stopping)
        assert deixis(arguments)[0] == 130


@pytest.mark.slow
def test_results_do_not_depend_on_loading_processes(model, tmp_path, run, deixis) -> None:
    arguments = refer_arguments(model, tmp_path, "--epochs", "2", "--num-workers", "2")
    assert deixis(arguments)[0] == 0
    mine, theirs = weights(tmp_path / "segmenter/teachers/sa2va"), weights(run / "teachers/sa2va")
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_accumulated_batches_equal_one_large_batch(model, tmp_path, deixis) -> None:
    """One step of four images at once, or of two batches of two: the same step."""
    common = ("--max-steps", "1", "--epochs", "1", "--no-report", "--no-baseline", "--mask-points", "0")
    for name, more in {"one": ("--batch-size", "4"), "two": ("--gradient-accumulation-steps", "2")}.items():
        arguments = refer_arguments(model, tmp_path, *common, *more, "--lora-dropout", "0", "--experiment-name", name)
        code, _, err = deixis(arguments)
        assert code == 0, err
    one, two = (weights(tmp_path / name / "teachers/sa2va") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=2e-6, msg=name)


def test_frozen_projection_sets_off_the_alarm(model, tmp_path) -> None:
    """With nothing between [SEG] and the mask decoder that lets the gradient through, the run must not go on."""
    options = ReferTrainOptions(
        data=(TRAIN_SCENES,), val_data=(VAL_SCENES,), model=str(model), output=tmp_path, gpus=0, num_workers=0,
        lora_r=4, mask_points=64, baseline=False, report=False, max_tiles=1,
    )  # fmt: skip
    from deixis.models.sa2va import Sa2va

    masks = Sa2va.masks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sa2va, "masks", lambda self, hidden, *more: masks(self, hidden.detach(), *more))
        with pytest.raises(TrainingError, match="no gradient"):
            recipe.finetune_segmenter(options)


def test_the_released_behaviour_trains_and_leaves_its_heads_alone(model, tmp_path, deixis) -> None:
    code, _, err = deixis(refer_arguments(model, tmp_path, "--behaviour", "sa2va", "--max-steps", "2"))
    assert code == 0, err
    before, after = weights(model), weights(tmp_path / "segmenter/teachers/sa2va")
    heads = [name for name in before if "iou_prediction_head" in name or "pred_obj_score_head" in name]
    assert heads
    assert all(torch.equal(before[name], after[name]) for name in heads)


def test_predict_writes_pictures_masks_and_json(model, tmp_path, deixis) -> None:
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "a.jpg")
    code, out, err = deixis(
        [
            *("refer", "predict", "--model", str(model), "--images", str(tmp_path / "a.jpg")),
            *("--phrases", "the red star", "a circle", "--output", str(tmp_path / "found")),
        ]
    )
    assert code == 0, err
    assert "of 2 phrases" in out
    (record,) = json.loads((tmp_path / "found/segmentations.json").read_text())
    assert [phrase["text"] for phrase in record["phrases"]] == ["the red star", "a circle"]
    for phrase in record["phrases"]:
        mask = np.asarray(Image.open(tmp_path / "found" / phrase["mask"]))
        assert mask.shape == (60, 90)
        assert (mask > 0).sum() == phrase["area"]
    assert (tmp_path / "found/pictures/a.jpg").exists()


@pytest.mark.parametrize("more", [(), ("--generate",)])
def test_eval_writes_metrics(model, tmp_path, deixis, more) -> None:
    arguments = ["refer", "eval", "--model", str(model), "--data", VAL_SCENES, "--output", str(tmp_path), *more]
    code, out, err = deixis(arguments)
    assert code == 0, err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["gIoU"] <= 1
    assert metrics["images"] == 3
    assert "cIoU" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--data", "scenes:split=nowhere"), "no split 'nowhere'"),
        (("--data", "scenes:split=refer_train,colour=3"), "colour"),
        (("--max-tokens", "20"), "--max-tokens"),
        (("--train", "tail"), "--train"),
        (("--learning-rate", "0"), "--learning-rate"),
        (("--behaviour", "sa2va", "--weight-iou", "1"), "--weight-iou"),
        (("--model", __file__), "is a file; name the folder of a model"),
        (
            ("--model", "builtin", "--sam-model", "sam"),
            "--sam-model needs --model with a vision-language model, got 'builtin'",
        ),
        (("--sa1b-dir", "nowhere"), "nowhere: no such file or folder"),
        (("--sav-dir", str(Path(__file__).parent)), "no clips of a known format"),
        (("--cycle-threshold", "2"), "--cycle-threshold"),
        (("--clip-frames", "0"), "--clip-frames"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(model, tmp_path, deixis, more, said) -> None:
    code, _, err = deixis(refer_arguments(model, tmp_path, "--no-baseline", "--no-report", *more))
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_quick_run_ends_after_twenty_steps(model, tmp_path, deixis) -> None:
    more = ("--quick", "--epochs", "8", "--no-report", "--no-baseline", "--log-with", "none")
    code, _, err = deixis(refer_arguments(model, tmp_path, *more))
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "segmenter/metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "step" for line in lines) == 20
    assert not (tmp_path / "segmenter/tensorboard").exists()
    assert (tmp_path / "segmenter/teachers/sa2va").is_dir()


def test_dry_run_reads_everything_and_writes_nothing(model, tmp_path, deixis) -> None:
    code, out, _ = deixis(refer_arguments(model, tmp_path / "out", "--dry-run"))
    assert code == 0
    assert "mask_decoder" in out
    assert not (tmp_path / "out").exists()


def predict_arguments(model: Path, pictures: Path, output: Path, *phrases: str) -> list[str]:
    where = ("--model", str(model), "--images", str(pictures), "--output", str(output))
    return ["refer", "predict", *where, "--phrases", *phrases]


def test_one_broken_picture_does_not_stop_a_prediction(model, tmp_path, deixis) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").write_bytes(b"no picture")
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "photos/1.jpg")
    code, out, err = deixis(predict_arguments(model, tmp_path / "photos", tmp_path / "found", "a star"))
    assert code == 0
    (line,) = [line for line in err.splitlines() if "0.jpg" in line]
    assert line.startswith("deixis: warning: left out: ")
    (record,) = json.loads((tmp_path / "found/segmentations.json").read_text())
    assert record["file"].endswith("1.jpg")
    assert "in 1 images" in out
    (tmp_path / "photos/1.jpg").write_bytes(b"nor this")
    code, _, err = deixis(predict_arguments(model, tmp_path / "photos", tmp_path / "found", "a star"))
    assert code == 2
    assert "none of 2 images can be read" in err


@pytest.mark.parametrize("mark", ["<|im_end|>", "<img>"])
def test_phrases_must_not_hold_marks_of_the_conversation(model, tmp_path, deixis, mark) -> None:
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "a.jpg")
    code, _, err = deixis(predict_arguments(model, tmp_path / "a.jpg", tmp_path / "found", f"a {mark} star"))
    assert code == 2
    assert f"holds '{mark}'" in err
    assert len(err.strip().splitlines()) == 1


def test_a_place_for_results_that_cannot_be_written_is_told_before_the_model_is_read(tmp_path, deixis) -> None:
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "a.jpg")
    (tmp_path / "file").write_text("")
    code, _, err = deixis(predict_arguments(Path("no such model"), tmp_path / "a.jpg", tmp_path / "file", "a star"))
    assert code == 2
    assert "cannot be written" in err
