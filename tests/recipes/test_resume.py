"""A run that was stopped and resumed ends as one that was not: the same weights and metrics, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import EVERYTHING, finish, records, start, train_arguments

# Everything trains, with dropout in text and image encoders, denoising queries, an average, and two batches a step:
# 3 epochs of 4 steps.
OPTIONS = (
    *(*EVERYTHING, "--epochs", "3", "--batch-size", "2", "--gradient-accumulation-steps", "2"),
    *("--denoising-queries", "6"),
    *(
        "--schedule",
        "cosine",
        "--ema-decay",
        "0.9",
        "--save-interval",
        "1",
        "--data",
        "scenes:split=demo_train,count=14,seed=1",
    ),
)
STEPS = 12

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tiny_model, tmp_path_factory):
    """The folder of a run that nothing stopped."""
    output = tmp_path_factory.mktemp("uninterrupted")
    finish(start(train_arguments(tiny_model, output, *OPTIONS)))
    return output / "detector"


def wait_for_step(run, step, process):
    """Until the log shows that a step was made."""
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 1200
    while not log.exists() or log.read_text().count('"kind": "step"') < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_same_run(run, other):
    for name in ("checkpoints/last", "checkpoints/best", "teachers/grounding_dino"):
        mine, theirs = (load_file(folder / name / "model.safetensors") for folder in (run, other))
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    mine, theirs = (torch.load(folder / "checkpoints/last/training.pt", weights_only=True) for folder in (run, other))
    assert_equal(mine, theirs)
    assert records(run) == records(other)


def assert_equal(mine, theirs):
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs)
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert_equal(mine[key], theirs[key])
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert_equal(a, b)
    else:
        assert mine == theirs


def test_the_log_has_each_step_once(uninterrupted):
    assert [record["step"] for record in records(uninterrupted, "step")] == list(range(STEPS))
    assert [record["step"] for record in records(uninterrupted, "evaluation")] == [4, 8, 12]


def test_killed_at_a_random_step_and_resumed_with_another_worker_count(tiny_model, tmp_path, uninterrupted):
    step = random.randrange(2, STEPS)
    print(f"killing at step {step}")
    process = start(train_arguments(tiny_model, tmp_path, *OPTIONS))
    wait_for_step(tmp_path / "detector", step, process)
    process.kill()
    finish(process, -signal.SIGKILL)
    out, _ = finish(start(train_arguments(tiny_model, tmp_path, *OPTIONS, "--resume", "--workers", "2")))
    assert "resuming" in out
    assert_same_run(tmp_path / "detector", uninterrupted)


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "process group with workers"])
def test_sigterm_saves_exits_with_143_and_the_run_resumes(tiny_model, tmp_path, uninterrupted, whole_group):
    options = [*OPTIONS, "--save-interval", "0"]
    workers = "1" if whole_group else "0"
    process = start(train_arguments(tiny_model, tmp_path, *options, "--workers", workers), new_session=True)
    wait_for_step(tmp_path / "detector", 2, process)
    if whole_group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    _, err = finish(process, 143)
    assert "--resume" in err
    assert "Traceback" not in err
    finish(start(train_arguments(tiny_model, tmp_path, *options, "--auto-resume")))
    assert_same_run(tmp_path / "detector", uninterrupted)
