"""What a dry run prints of a run's length."""

import re

import pytest
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import train_arguments

SPEED = re.compile(
    r"time +about ([\d.]+) s: (\d+) steps of ([\d.]+) s, (\d+) evaluations of ([\d.]+) s; measured here on"
)


@pytest.mark.parametrize(
    ("more", "length"),
    [
        (("--epochs", "5", "--batch-size", "4"), "5 epochs of 3 steps, 15 steps in all; "),
        (("--epochs", "5", "--batch-size", "2", "--gradient-accumulation-steps", "4"), "5 epochs of 2 steps, 10 steps"),
        (("--epochs", "5", "--max-steps", "7"), "3 epochs of 3 steps, 7 steps in all; "),
        (("--epochs", "5", "--warmup-steps", "4"), "15 steps in all; 4 of warm-up"),
    ],
)
def test_a_dry_run_prints_epochs_and_steps(deixis, tiny_model, tmp_path, more, length):
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, "--dry-run", *more))
    assert code == 0, err
    assert length in out
    assert SPEED.search(out), out
    assert not (tmp_path / "detector").exists()


def test_that_of_a_segmenter_too(deixis, tmp_path):
    model = write_tiny_segmenter(tmp_path / "model")
    code, out, err = deixis(refer_arguments(model, tmp_path / "runs", "--dry-run", "--epochs", "3"))
    assert code == 0, err
    assert "3 epochs of " in out
    assert SPEED.search(out), out


@pytest.mark.parametrize("more", [(), ("--evaluate-every", "2", "--no-baseline"), ("--stop-after-epochs", "2")])
def test_the_time_is_that_of_its_steps_and_evaluations(deixis, tiny_model, tmp_path, more):
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, "--dry-run", "--epochs", "5", *more))
    assert code == 0, err
    total, steps, per_step, evaluations, per_evaluation = map(float, SPEED.search(out).groups())
    assert (steps, evaluations) == {(): (15, 6), ("--evaluate-every", "2", "--no-baseline"): (15, 3)}.get(more, (6, 3))
    assert total == pytest.approx(steps * per_step + evaluations * per_evaluation, rel=0.1)
