"""Two processes (gloo), or two accumulated batches, give loss and gradient of one process on the joined batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import records, train_arguments, write_tiny_model
from tiny_runs import run_program as run

SCRIPT = Path(__file__).with_name("one_step.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The first step of the same eight images, by processes and by batch size x batches."""
    folder = tmp_path_factory.mktemp("steps")
    model = write_tiny_model(folder / "model", dropout=0.0)
    for name in ("one", "two"):
        (folder / name).mkdir()
    run(SCRIPT, model, folder / "one", "8x1", "4x2")
    run(SCRIPT, model, folder / "two", "4x1", "2x2", processes=2)
    return {f"{path.parent.name} {path.stem}": torch.load(path, weights_only=True) for path in folder.glob("*/*.pt")}


@pytest.mark.parametrize("way", ["one 4x2", "two 4x1", "two 2x2"])
def test_the_losses_are_those_of_the_joined_batch(steps, way):
    one, other = steps["one 8x1"]["figures"], steps[way]["figures"]
    assert one.keys() == other.keys()
    for name in one.keys() - {"class_error"}:  # a mean over batches
        assert other[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.parametrize("way", ["one 4x2", "two 4x1", "two 2x2"])
def test_the_gradients_are_those_of_the_joined_batch(steps, way):
    one, other = steps["one 8x1"]["gradients"], steps[way]["gradients"]
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert gradient is not None, name
        torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_a_whole_run_in_two_processes(tiny_model, tmp_path):
    """It ends, and evaluates every image once, whichever process saw it."""
    options = ("--epochs", "1", "--batch-size", "2", "--no-report")
    run("-m", "deixis", *train_arguments(tiny_model, tmp_path, *options), processes=2)
    folder = tmp_path / "detector"
    assert [record["step"] for record in records(folder, "step")] == [0, 1, 2]
    for record in records(folder, "baseline", "evaluation"):
        assert record["images"] == 4
    assert (folder / "teachers/grounding_dino/model.safetensors").is_file()
