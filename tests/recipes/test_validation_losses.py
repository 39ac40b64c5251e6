"""Losses on validation data: those of training's criterion, logged and drawn; nothing of the run depends on them."""

from __future__ import annotations

import math
import warnings
from itertools import groupby

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records, run_program, train_arguments

from deixis.data.formats import read_dataset
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.losses.detection import build_criterion
from deixis.losses.refer import ReferCriterion
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.sa2va import load_sa2va
from deixis.options.detect_train import DetectLoss
from deixis.options.refer_train import Conversations
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.recipes.detect.model import make_criterion
from deixis.recipes.run.validation_losses import detector_validation_losses, refer_validation_losses
from deixis.records import SampleList
from deixis.training.tasks.detector import warn_about_missing_outputs

COMPONENTS = {f"loss_{kind}{layer}" for kind in ("ce", "bbox", "giou") for layer in ("", "_0", "_enc")}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.mark.slow
def test_every_component_is_logged_and_drawn_and_changes_nothing(deixis, tiny_model, tmp_path):
    arguments = train_arguments(tiny_model, tmp_path, "--epochs", "2")
    assert deixis(arguments)[0] == 0
    evaluations = records(tmp_path / "detector", "baseline", "evaluation")
    assert len(evaluations) == 3
    for record in evaluations:
        losses = record["losses"]
        assert losses.keys() == COMPONENTS | {"loss", "class_error"}
        weights = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}
        total = sum(weights[name.split("_")[1]] * losses[name] for name in COMPONENTS)
        assert losses["loss"] == pytest.approx(total, rel=1e-5)
    assert "Dashed, with dots" in (tmp_path / "detector/report.html").read_text()
    without = [*arguments, "--val-loss-images", "0", "--experiment-name", "without"]
    assert deixis(without)[0] == 0
    assert all("losses" not in record for record in records(tmp_path / "without", "evaluation"))
    assert "Dashed, with dots" not in (tmp_path / "without/report.html").read_text()
    files = [tmp_path / name / "teachers/grounding_dino/model.safetensors" for name in ("detector", "without")]
    mine, theirs = map(load_file, files)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_an_untrained_image_has_the_loss_that_the_criterion_gives_it(tiny_model):
    """Images one by one, all in one batch, or only some of them: means over boxes of the same sums."""
    bundle = load_grounding_dino(tiny_model)
    bundle.model.eval()
    criterion = make_criterion(DetectLoss(), bundle)
    prompts = TrainingPrompts(bundle.prompt_tokenizer, bundle.model.max_text_len, shuffle=True)
    several = read_dataset("scenes:split=demo_val,count=20,seed=2")
    by_size = groupby(sorted(range(len(several)), key=lambda i: several[i].size_hw), lambda i: several[i].size_hw)
    # of one size: where a batch is padded, Swin sees it
    alike = max((list(places) for _, places in by_size), key=len)[:5]
    validation = SampleList(tuple(several[place] for place in alike), several.vocabulary)
    assert len(validation) == 5

    def measured(**changes):
        sizes = {"images": 100, "batch_size": 1, **changes}
        return detector_validation_losses(bundle, criterion, prompts, validation, Accelerator(cpu=True), **sizes)()

    alone = measured()
    torch.manual_seed(77)
    assert measured() == alone  # nothing is drawn from the global state
    assert measured(batch_size=5)["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert measured(images=2) != alone
    noisy = make_criterion(DetectLoss(denoising_queries=4), bundle)
    found = detector_validation_losses(
        bundle, noisy, prompts, validation, Accelerator(cpu=True), images=100, batch_size=1
    )()
    assert found["losses"] == pytest.approx(alone["losses"])
    assert all(weight.grad is None for weight in bundle.model.parameters())


@pytest.mark.slow
def test_the_segmenters_losses(deixis, segmenter, tmp_path):
    assert deixis(refer_arguments(segmenter, tmp_path, "--epochs", "2"))[0] == 0
    evaluations = records(tmp_path / "segmenter", "baseline", "evaluation")
    names = {"loss", "loss_mask", "loss_dice", "loss_iou", "loss_object", "loss_language", "iou"}
    for record in evaluations:
        assert record["losses"].keys() == names
        assert all(math.isfinite(value) for value in record["losses"].values())
    assert evaluations[0]["losses"] != evaluations[-1]["losses"]
    assert "Dashed, with dots" in (tmp_path / "segmenter/report.html").read_text()


def test_the_segmenters_losses_are_the_same_at_each_evaluation_and_in_any_batch(segmenter):
    bundle = load_sa2va(segmenter)
    bundle.model.eval()
    validation = refer_scenes("refer_seen", 5, 2)
    accelerator, conversations = Accelerator(cpu=True), Conversations(max_tiles=1)

    def measured(batch_size, images=100):
        criterion = ReferCriterion(points=64)
        sizes = {"images": images, "batch_size": batch_size}
        return refer_validation_losses(bundle, criterion, validation, accelerator, conversations, **sizes)()

    alone = measured(batch_size=1)
    torch.manual_seed(77)
    assert measured(batch_size=1) == alone
    assert measured(batch_size=5)["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert measured(batch_size=2, images=0) == {}


@pytest.mark.slow
def test_two_processes_measure_the_losses_of_one(tiny_model, tmp_path):
    """At --batch-size 1, so that neither process pads an image."""
    found = []
    for processes, name in ((1, "one"), (2, "two")):
        more = ("--epochs", "1", "--max-steps", "1", "--no-report", "--eval-batch-size", "1", "--experiment-name", name)
        run_program("-m", "deixis", *train_arguments(tiny_model, tmp_path, *more), processes=processes)
        found.append(records(tmp_path / name, "baseline")[0]["losses"])
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_a_model_without_auxiliary_outputs_is_told():
    criterion = build_criterion(decoder_layers=3)
    names = {"loss_ce", "loss_bbox", "loss_giou", "class_error"}
    with pytest.warns(UserWarning, match=r"no output for 9 of 12 losses .*loss_ce_0"):
        warn_about_missing_outputs(criterion, dict.fromkeys(names, torch.zeros(())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about_missing_outputs(criterion, dict.fromkeys(criterion.weight_dict, torch.zeros(())))
