"""`deixis detect train`, its variants, and what uses its results."""

from __future__ import annotations

import json

import pytest
import torch
from local_hub import use_local_hub
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, records, train_arguments, write_coco
from transformers import MMGroundingDinoForObjectDetection

from deixis.options.detect_train import DetectTrainOptions
from deixis.options.yaml_files import read_options

COMPONENTS = {f"loss_{kind}{layer}" for kind in ("ce", "bbox", "giou") for layer in ("", "_0", "_enc")}


@pytest.fixture
def train(deixis, tiny_model, tmp_path):
    """Trains for one epoch of three steps, unless told otherwise; the run's folder and what was printed."""

    def run(*more):
        code, out, err = deixis(train_arguments(tiny_model, tmp_path / "runs", "--epochs", "1", *more))
        assert code == 0, err
        return tmp_path / "runs/detector", out

    return run


def test_a_run_leaves_what_the_readme_promises(train, tiny_model):
    folder, out = train()
    assert {path.name for path in folder.iterdir()} == {
        *("checkpoints", "teachers", "metrics.jsonl", "tensorboard", "config.yaml", "report.html", "result.json"),
        ".deixis-run.json",
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last", "best"}
    assert "frozen" in out
    assert "AP before" in out
    assert "peak memory: " in out
    assert "resident memory" in (folder / "report.html").read_text()
    kinds = [record["kind"] for record in records(folder)]
    assert kinds == ["baseline", "step", "step", "step", "evaluation"]
    options = read_options(DetectTrainOptions, folder / "config.yaml")
    assert (options.recipe, options.learning_rate, options.epochs) == ("small", 1e-4, 1)
    assert (folder / "report.html").read_text().count("<img") >= 1


def test_every_component_is_logged(train):
    folder, _ = train()
    for record in records(folder, "step"):
        assert COMPONENTS | {"loss", "class_error", "grad_norm", "lr", "epoch", "skipped"} <= record.keys()
        weights = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}  # the preset of MM-Grounding-DINO
        total = sum(weights[name.split("_")[1]] * record[name] for name in COMPONENTS)
        assert record["loss"] == pytest.approx(total, rel=1e-5)


def test_the_small_recipe_leaves_backbone_and_text_alone(train, tiny_model):
    folder, _ = train()
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, folder / "teachers/grounding_dino"))
    frozen = [name for name in before if name.startswith(("model.backbone.", "model.text_backbone."))]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in before.keys() - set(frozen))


def test_the_result_loads_in_transformers(train):
    folder, _ = train()
    _, report = MMGroundingDinoForObjectDetection.from_pretrained(
        folder / "teachers/grounding_dino", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_lora_writes_an_adapter_that_the_commands_load(train, deixis, tmp_path):
    folder, _ = train("--lora", "--lora-rank", "2", "--precision", "bf16")
    adapter = folder / "teachers/grounding_dino_lora"
    assert {path.name for path in adapter.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "deixis.json", "README.md")
    }
    labels = write_coco(tmp_path / "data", count=2)
    code, out, err = deixis(["detect", "eval", "--data", labels, "--model", adapter, "--output", tmp_path / "eval"])
    assert code == 0, err
    assert "AP50" in out
    assert json.loads((tmp_path / "eval/metrics.json").read_text())["images"] == 2


def test_predict_writes_pictures_and_json(train, deixis, tmp_path):
    folder, _ = train("--no-report")
    write_coco(tmp_path / "data", count=2)
    out = tmp_path / "found"
    code, _, err = deixis(
        [
            *("detect", "predict", "--model", folder / "checkpoints/best", "--images", tmp_path / "data/images"),
            *("--names", "star", "fish", "--output", out, "--threshold", "0"),
        ]
    )
    assert code == 0, err
    assert {path.name for path in out.iterdir()} == {
        *("pictures", "predictions.json", "coco_results.json", ".deixis-output.json")
    }
    assert len(json.loads((out / "predictions.json").read_text())) == 2


@pytest.mark.parametrize(
    "more",
    [
        ("--recipe", "large", "--gradient-checkpointing", "--ema-decay", "0.9"),
        (*EVERYTHING, "--encoder-loss", "objectness", "--precision", "bf16"),
        ("--loss-preset", "grounding_dino", "--weight-giou", "0", "--freeze", "encoder", "--schedule", "cosine"),
        ("--image-size", "48", "64", "--augment", "flips", "--log-with", "none"),
    ],
    ids=["large", "everything", "grounding_dino", "48"],
)
def test_variants_run(train, more):
    folder, _ = train("--no-report", "--no-baseline", *more)
    assert len(records(folder, "step")) == 3
    assert (folder / "tensorboard").exists() == ("none" not in more)


def test_gradient_checkpointing_changes_no_number(train):
    arguments = (*EVERYTHING, "--overwrite")
    plain = records(train(*arguments)[0], "step")
    saving = records(train(*arguments, "--gradient-checkpointing")[0], "step")
    for mine, theirs in zip(plain, saving, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_without_validation_data_a_fifth_is_held_out(train, tmp_path):
    labels = write_coco(tmp_path / "data", count=10)
    _, out = train("--data", str(labels), "--val-data", "", "--dry-run")
    assert "8 training and 2 validation images" in out


def test_a_dry_run_writes_nothing(train):
    folder, out = train("--dry-run")
    assert not folder.parent.exists()
    assert "learning rate" in out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/absent", "could not be downloaded"),
        ("absent", "no such folder"),
        ("empty", "empty/config.json: cannot be read"),
    ],
)
def test_what_it_cannot_be_compared_with_is_found_before_anything_is_written(
    name, told, deixis, tiny_model, tmp_path, monkeypatch
):
    (tmp_path / "empty").mkdir()
    use_local_hub(monkeypatch, tmp_path / "cache", {})
    code, _, err = deixis(train_arguments(tiny_model, tmp_path / "runs", "--compare-with", name))
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "runs").exists()


def test_a_run_is_compared_with_a_model_of_the_hub(deixis, tiny_model, tmp_path, monkeypatch):
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/other": tiny_model})
    more = ("--compare-with", "me/other", "--max-steps", "1", "--no-report", "--no-baseline")
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    assert "of me/other on the same images" in " ".join(out.split())


def test_patience_ends_a_run_that_does_not_gain(train):
    folder, _ = train("--epochs", "9", "--early-stopping-patience", "2", "--no-report", "--learning-rate", "1e-9")
    evaluations = records(folder, "evaluation")
    assert [record["best"] for record in evaluations] == [True, False, False]


def test_evaluation_can_be_rarer_and_always_ends_the_run(train):
    folder, _ = train("--epochs", "3", "--evaluate-every", "2", "--no-report")
    assert [record["epoch"] for record in records(folder, "evaluation")] == [1, 2]


def test_max_steps_ends_a_run_within_an_epoch(train):
    folder, _ = train("--epochs", "3", "--max-steps", "4", "--no-report")
    assert [record["step"] for record in records(folder, "step")] == [0, 1, 2, 3]
    assert records(folder)[-1]["kind"] == "evaluation"


@pytest.mark.slow
def test_stopping_after_some_epochs_keeps_the_rates_of_all(train):
    def rates(*more):
        folder, _ = train("--epochs", "3", "--schedule", "cosine", "--no-report", "--no-baseline", "--overwrite", *more)
        return [record["lr"]["decoder"] for record in records(folder, "step")]

    whole, part = rates(), rates("--stop-after-epochs", "2")
    assert part == whole[: len(part)]
    assert len(part) == len(whole) * 2 // 3


def test_a_finished_run_resumed_does_no_step(train):
    folder, _ = train("--no-report")
    before = records(folder)
    train("--no-report", "--resume")
    assert records(folder) == before


def test_overwrite_starts_anew(train):
    folder, _ = train("--no-report", "--max-steps", "1")
    (folder / "notes.txt").write_text("the user's own")
    train("--no-report", "--max-steps", "2", "--overwrite")
    assert len(records(folder, "step")) == 2
    assert (folder / "notes.txt").exists()
