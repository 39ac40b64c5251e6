"""Checkpoints: all or nothing, exact, and never another run's."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deixis.errors import TrainingError
from deixis.training.checkpoint import (
    Identity,
    Progress,
    load_checkpoint,
    recover,
    replacing_folder,
    save_checkpoint,
)
from deixis.training.ema import WeightAverage

IDENTITY = Identity({"learning_rate": 1e-4, "freeze": ["text"]}, {"model": "abc"})


def trained(seed=0, width=3):
    """A model, its optimiser after two steps, and its average."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    average = WeightAverage(model, 0.9)
    for _ in range(2):
        model(torch.ones(1, width)).sum().backward()
        optimizer.step()
        average.update()
        optimizer.zero_grad()
    return model, optimizer, average


def write(path: Path, text: str) -> None:
    with replacing_folder(path) as fresh:
        (fresh / "a.txt").write_text(text)


def test_round_trip_restores_everything(tmp_path):
    model, optimizer, average = trained()
    progress = Progress(epoch=2, step_in_epoch=3, step=11, updates=10, skipped=1, best_score=0.25, log_bytes=7)
    save_checkpoint(tmp_path / "last", model, optimizer, average, progress, IDENTITY)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002

    other, other_optimizer, other_average = trained(seed=1)
    loaded = load_checkpoint(tmp_path / "last", other, other_optimizer, other_average, IDENTITY)
    assert loaded == progress
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn  # noqa: NPY002
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert average.updates == other_average.updates
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, other_average.state_dict()[name])
    for mine, theirs in zip(
        optimizer.state_dict()["state"].values(), other_optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_at_either_rename_keeps_the_old_content(tmp_path, monkeypatch, renames):
    folder = tmp_path / "last"
    write(folder, "old")
    real, done = Path.rename, []

    def rename(self, target):
        if len(done) == renames:
            raise KeyboardInterrupt  # no handler of ours may tidy up: this stands for a kill
        done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "new")
    monkeypatch.undo()
    assert recover(folder)
    assert (folder / "a.txt").read_text() == "old"


def test_a_crash_while_writing_keeps_the_old_content(tmp_path):
    folder = tmp_path / "last"
    write(folder, "old")

    def crash():
        with replacing_folder(folder) as fresh:
            (fresh / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert (folder / "a.txt").read_text() == "old"
    write(folder, "new")
    assert (folder / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_crash_after_the_renames_leaves_the_new_content(tmp_path):
    folder = tmp_path / "last"
    write(folder, "new")
    (tmp_path / "last.previous").mkdir()
    assert recover(folder)
    assert (folder / "a.txt").read_text() == "new"
    assert not (tmp_path / "last.previous").exists()


def test_nothing_there_is_nothing_recovered(tmp_path):
    assert not recover(tmp_path / "last")


def test_a_full_disk_is_one_line_and_keeps_the_old_content(tmp_path):
    folder = tmp_path / "last"
    write(folder, "old")
    with pytest.raises(TrainingError, match=r"cannot be written.*No space.*is kept"), replacing_folder(folder):
        raise OSError(28, "No space left on device")
    assert (folder / "a.txt").read_text() == "old"


def test_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_checkpoint(tmp_path / "last", *trained(), IDENTITY)


def test_another_run_s_checkpoint_names_every_difference(tmp_path):
    save_checkpoint(tmp_path / "last", *trained(), Progress(), IDENTITY)
    other = Identity({"learning_rate": 1e-5, "freeze": ["text"]}, {"model": "xyz"})
    with pytest.raises(TrainingError, match=r"learning_rate was 0.0001, now 1e-05; model was 'abc', now 'xyz'"):
        load_checkpoint(tmp_path / "last", *trained(), other)


def test_another_model_s_weights_are_refused(tmp_path):
    save_checkpoint(tmp_path / "last", *trained(), Progress(), IDENTITY)
    with pytest.raises(TrainingError, match=r"1 of 4 tensors differ, first 0\.weight"):
        load_checkpoint(tmp_path / "last", *trained(width=5), IDENTITY)


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "state.json"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, name):
    save_checkpoint(tmp_path / "last", *trained(), Progress(), IDENTITY)
    path = tmp_path / "last" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TrainingError, match=r"damaged|not a checkpoint"):
        load_checkpoint(tmp_path / "last", *trained(), IDENTITY)


def test_shared_weights_are_written_once_and_loaded(tmp_path):
    first = nn.Linear(2, 2)
    model = nn.ModuleList([first, first])
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(tmp_path / "last", model, optimizer, None, Progress(), IDENTITY)
    kept = first.weight.detach().clone()
    nn.init.zeros_(first.weight)
    load_checkpoint(tmp_path / "last", model, optimizer, None, IDENTITY)
    assert torch.equal(first.weight, kept)
