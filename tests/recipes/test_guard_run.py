"""NaN injected into a run: caught in its step, named, and the run goes on or stops, nothing corrupted."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, records, train_arguments

from deixis.losses.detection import DetectionCriterion
from deixis.models.grounding_dino import GroundingDino
from deixis.training import loop
from deixis.training.tasks import detector as detector_task

pytestmark = pytest.mark.slow  # whole runs

OPTIONS = ("--epochs", "2", "--no-report", "--no-baseline", "--batch-size", "4", "--ema-decay", "0.9")


@pytest.fixture
def run(deixis, tiny_model, tmp_path):
    """Six steps on a dozen scenes; (exit code, stderr, run folder)."""

    def start(*more):
        code, _, err = deixis(train_arguments(tiny_model, tmp_path, *OPTIONS, *more))
        return code, err, tmp_path / "detector"

    return start


def saved(folder):
    return load_file(folder / "checkpoints/last/model.safetensors")


def all_finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@pytest.fixture
def poisoned_image(monkeypatch):
    """Scene 7 has a NaN among its pixels whenever it is normalised in training."""
    real = detector_task.detection_losses

    def losses(model, normalise, criterion, *, batch, **rest):
        def poison(pixels_u8, mask):
            values = normalise(pixels_u8, mask).clone()
            for row, target in enumerate(batch.targets):
                if target.image_id == 7:
                    values[row, 0, 3, 4] = math.nan
            return values

        return real(model, poison, criterion, batch=batch, **rest)

    monkeypatch.setattr(detector_task, "detection_losses", losses)


def test_a_nan_in_an_image_skips_its_step_and_names_it(run, poisoned_image):
    code, err, folder = run()
    assert code == 0, err
    skips = records(folder, "skip")
    assert [record["epoch"] for record in skips] == [0, 1]
    assert all(record["samples"] == ["scenes:split=demo_train,count=12,seed=1: scene 7"] for record in skips)
    assert all("loss" in record["non_finite"] and "grad_norm" in record["non_finite"] for record in skips)
    assert [record["skipped"] for record in skips] == [1, 2]
    assert len(records(folder, "step")) == 4
    assert all_finite(saved(folder))
    training = torch.load(folder / "checkpoints/last/training.pt", weights_only=True)
    assert all_finite(training["average"])
    assert training["average_updates"] == 4
    assert {int(state["step"]) for state in training["optimizer"]["state"].values()} == {4}


def test_a_skipped_step_leaves_no_trace(run, monkeypatch):
    """A run whose bad steps are skipped ends with the weights it had without them."""
    real, before = loop.name_and_log_skip, []

    def watch(task, state, *rest, **named):
        before.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
        real(task, state, *rest, **named)
        assert all(weight.grad is None for weight in task.model.parameters())

    monkeypatch.setattr(loop, "name_and_log_skip", watch)
    total = DetectionCriterion.total
    monkeypatch.setattr(DetectionCriterion, "total", lambda self, losses: total(self, losses) * math.nan)
    code, err, folder = run("--max-steps", "3")
    assert code == 0, err
    assert len(before) == 3
    for name, tensor in saved(folder).items():
        assert torch.equal(tensor, before[0][name]), name
    assert records(folder, "step") == []


def test_a_loss_that_stays_nan_stops_the_run(run, monkeypatch):
    total = DetectionCriterion.total
    monkeypatch.setattr(DetectionCriterion, "total", lambda self, losses: total(self, losses) * math.inf)
    code, err, folder = run("--max-skipped", "2")
    assert code == 2
    assert "steps before it were skipped" in err
    assert "scene" in err
    assert "Traceback" not in err
    assert len(records(folder, "skip")) == 3


def test_a_non_finite_gradient_of_a_finite_loss_is_caught(run, monkeypatch):
    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * math.inf

    real, steps = DetectionCriterion.total, []

    def total(self, losses):
        steps.append(1)
        value = real(self, losses)
        return Exploding.apply(value) if len(steps) == 2 else value

    monkeypatch.setattr(DetectionCriterion, "total", total)
    code, err, folder = run()
    assert code == 0, err
    (skip,) = records(folder, "skip")
    assert (skip["step"], skip["non_finite"]) == (1, ["grad_norm"])
    assert all_finite(saved(folder))


def test_a_nan_weight_stops_the_run_and_keeps_the_last_checkpoint(run, monkeypatch):
    real, calls = GroundingDino.forward, []

    def forward(self, *inputs, **named):
        if self.training:
            calls.append(1)
        if len(calls) == 3:
            with torch.no_grad():
                self.model.level_embed[0, 0] = math.nan
        return real(self, *inputs, **named)

    monkeypatch.setattr(GroundingDino, "forward", forward)
    code, err, folder = run("--save-interval", "1")
    assert code == 2
    assert "1 weights are NaN or inf themselves, the first is model.level_embed" in err
    assert "Traceback" not in err
    assert all_finite(saved(folder))


def test_the_guard_costs_nothing_when_all_is_well(run):
    code, err, folder = run()
    assert code == 0, err
    assert records(folder, "skip") == []
    assert [record["skipped"] for record in records(folder, "step")] == [0] * 6


@pytest.mark.parametrize("more", [(), ("--lora", "--lora-rank", "2"), (*EVERYTHING, "--batch-size", "1")])
def test_losses_of_weight_zero_set_off_the_alarm(run, more):
    """Six steps, or ten and more: the weights would only decay, and a teacher be written that has learnt nothing."""
    code, err, folder = run("--weight-class", "0", "--weight-box", "0", "--weight-giou", "0", *more)
    assert (code, err.count("\n")) == (2, 1), err
    assert "no part received a gradient" in err
    assert "--weight-" in err
    assert not (folder / "teachers").exists()


def test_a_part_cut_off_from_the_losses_is_named(run, monkeypatch):
    real = detector_task.detection_losses

    def without_decoder(model, *rest, **named):
        total, losses = real(model, *rest, **named)
        for name, weight in model.named_parameters():
            if name.startswith(("model.decoder.", "model.query_position")) and weight.requires_grad:
                weight.register_hook(torch.zeros_like)
        return total, losses

    monkeypatch.setattr(detector_task, "detection_losses", without_decoder)
    code, err, _ = run()
    assert code == 2
    assert "decoder received no gradient" in err


@pytest.mark.parametrize("more", [("--weight-box", "0", "--weight-giou", "0"), ("--weight-class", "0")])
def test_one_loss_is_enough(run, more):
    code, err, _ = run(*more)
    assert code == 0, err
