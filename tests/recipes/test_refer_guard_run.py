"""The segmenter's run when something goes wrong: a NaN is caught and named, a killed run goes on exactly."""

from __future__ import annotations

import math
import signal

import pytest
import torch
from safetensors.torch import load_file
from test_resume import assert_equal, wait_for_step
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import finish, records, start

from deixis.losses.refer import ReferCriterion
from deixis.training.tasks.segmenter import SegmenterTask

PLAIN = ("--no-report", "--no-baseline", "--batch-size", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.mark.parametrize("half", ["normalise_sam", "normalise_tiles"])
def test_a_nan_in_an_image_skips_its_step_and_names_it(model, tmp_path, deixis, monkeypatch, half) -> None:
    """Scene 5 has a NaN among the pixels that one half of the model sees."""
    real = SegmenterTask._losses

    def poisoned(self, network, batch, normaliser):
        plain = getattr(self, half)
        rows = [row for row, target in enumerate(batch.targets) if target.image_id == 5]

        def poison(pixels):
            values = plain(pixels)
            values[rows, 0, 3, 4] = math.nan
            return values

        setattr(self, half, poison)
        try:
            return real(self, network, batch, normaliser)
        finally:
            setattr(self, half, plain)

    monkeypatch.setattr(SegmenterTask, "_losses", poisoned)
    code, _, err = deixis(refer_arguments(model, tmp_path, *PLAIN, "--epochs", "1"))
    assert code == 0, err
    (skip,) = records(tmp_path / "segmenter", "skip")
    assert skip["samples"] == ["scenes:split=refer_train,count=8,seed=1: scene 5"]
    assert {"loss", "grad_norm"} <= set(skip["non_finite"])
    assert len(records(tmp_path / "segmenter", "step")) == 3
    saved = load_file(tmp_path / "segmenter/checkpoints/last/model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values() if tensor.is_floating_point())


def test_a_loss_that_stays_infinite_stops_the_run(model, tmp_path, deixis, monkeypatch) -> None:
    total = ReferCriterion.total
    monkeypatch.setattr(ReferCriterion, "total", lambda self, losses: total(self, losses) * math.inf)
    monkeypatch.setattr("deixis.training.tasks.segmenter.require_mask_gradient", lambda *_: None)
    code, _, err = deixis(refer_arguments(model, tmp_path, *PLAIN, "--max-skipped", "1"))
    assert code == 2
    assert "steps before it were skipped" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_run_that_was_killed_ends_like_one_that_was_not(model, tmp_path, deixis) -> None:
    options = (
        *PLAIN,
        "--epochs",
        "2",
        "--save-interval",
        "1",
        "--ema-decay",
        "0.9",
        "--caption-share",
        "0.3",
        "--max-val-images",
        "1",
    )
    finish(start([str(word) for word in refer_arguments(model, tmp_path / "whole", *options)]))
    process = start([str(word) for word in refer_arguments(model, tmp_path / "killed", *options)])
    wait_for_step(tmp_path / "killed/segmenter", 3, process)
    process.kill()
    finish(process, -signal.SIGKILL)
    assert len(records(tmp_path / "killed/segmenter", "step")) < 8
    resumed = refer_arguments(model, tmp_path / "killed", *options, "--resume", "--num-workers", "1")
    out, _ = finish(start([str(word) for word in resumed]))
    assert "resuming" in out
    whole, killed = tmp_path / "whole/segmenter", tmp_path / "killed/segmenter"
    for path in sorted(whole.rglob("*.safetensors")):
        assert_equal(load_file(killed / path.relative_to(whole)), load_file(path))
    mine, theirs = (torch.load(run / "checkpoints/last/training.pt", weights_only=True) for run in (killed, whole))
    assert_equal(mine, theirs)
    assert records(killed) == records(whole)


EVERY_WEIGHT = [f"--weight-{name}" for name in ("mask", "dice", "iou", "object", "language")]


def test_losses_of_weight_zero_set_off_the_alarm(model, tmp_path, deixis) -> None:
    zeros = [word for name in EVERY_WEIGHT for word in (name, "0")]
    code, _, err = deixis(refer_arguments(model, tmp_path, *PLAIN, "--epochs", "1", *zeros))
    assert (code, err.count("\n")) == (2, 1), err
    assert "no part received a gradient" in err
    assert not (tmp_path / "segmenter/teachers").exists()


def test_the_parts_that_make_masks_are_named(model, tmp_path, deixis) -> None:
    zeros = [word for name in EVERY_WEIGHT[:-1] for word in (name, "0")]
    code, _, err = deixis(refer_arguments(model, tmp_path, *PLAIN, "--epochs", "3", *zeros))
    assert code == 2
    assert "mask_decoder" in err
    assert "text_hidden_fcs" in err
    assert "language" not in err.partition("received")[0]


@pytest.mark.slow
def test_describing_alone_sets_off_no_alarm(model, tmp_path, deixis) -> None:
    """Nothing asks for a mask, so the parts that make masks learn nothing by right."""
    more = ("--epochs", "3", "--caption-share", "1")
    code, _, err = deixis(refer_arguments(model, tmp_path, *PLAIN, *more))
    assert code == 0, err
