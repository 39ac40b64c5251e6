"""Checkpoints: all or nothing, exact, and never another run's."""

import copy
import json
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
    save_progress,
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


def save_parts(folder, parts, progress, identity):
    model, optimizer, average = parts
    save_checkpoint(folder, model, optimizer, average=average, progress=progress, identity=identity)


def load_parts(folder, parts, identity):
    model, optimizer, average = parts
    return load_checkpoint(folder, model, optimizer, average=average, identity=identity)


def write(path: Path, text: str) -> None:
    with replacing_folder(path) as fresh:
        (fresh / "a.txt").write_text(text)


def test_round_trip_restores_everything(tmp_path):
    model, optimizer, average = trained()
    progress = Progress(epoch=2, step_in_epoch=3, step=11, updates=10, skipped=1, best_score=0.25, log_bytes=7)
    before = random.getstate()
    save_checkpoint(tmp_path / "last", model, optimizer, average=average, progress=progress, identity=IDENTITY)
    random.setstate(before)  # the tests' type checks look at an item of a list that is drawn at random
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002

    other, other_optimizer, other_average = trained(seed=1)
    loaded = load_checkpoint(tmp_path / "last", other, other_optimizer, average=other_average, identity=IDENTITY)
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
    (tmp_path / ".last.previous").mkdir()
    assert recover(folder)
    assert (folder / "a.txt").read_text() == "new"
    assert not (tmp_path / ".last.previous").exists()


def test_what_an_older_version_was_replacing_is_found(tmp_path):
    write(tmp_path / "last.previous", "old")
    assert recover(tmp_path / "last")
    assert (tmp_path / "last" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["last.previous", "last.writing"])
def test_copies_that_a_user_made_beside_a_checkpoint_stay(tmp_path, name):
    write(tmp_path / "last", "old")
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.txt").write_text("the user's")
    write(tmp_path / "last", "new")
    assert recover(tmp_path / "last")
    assert (tmp_path / name / "a.txt").read_text() == "the user's"


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
        load_parts(tmp_path / "last", trained(), IDENTITY)


def test_another_run_s_checkpoint_names_every_difference(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(), IDENTITY)
    other = Identity({"learning_rate": 1e-5, "freeze": ["text"]}, {"model": "xyz"})
    with pytest.raises(TrainingError, match=r"learning_rate was 0.0001, now 1e-05; model was 'abc', now 'xyz'"):
        load_parts(tmp_path / "last", trained(), other)


def test_another_model_s_weights_are_refused(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(), IDENTITY)
    with pytest.raises(TrainingError, match=r"1 of 4 tensors differ, the first is 0\.weight"):
        load_parts(tmp_path / "last", trained(width=5), IDENTITY)


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "state.json"])
def test_any_flipped_bit_is_noticed(tmp_path, name):
    save_parts(tmp_path / "last", trained(), Progress(step=3), IDENTITY)
    path = tmp_path / "last" / name
    draw = random.Random(name)
    for position in [0, 8 * path.stat().st_size - 1, *(draw.randrange(8 * path.stat().st_size) for _ in range(40))]:
        flip_bit(path, position)
        with pytest.raises(TrainingError) as caught:
            load_parts(tmp_path / "last", trained(), IDENTITY)
        assert "\n" not in str(caught.value)
        flip_bit(path, position)
    assert load_parts(tmp_path / "last", trained(), IDENTITY).step == 3


def without_digests(folder: Path) -> None:
    """A checkpoint of an older version, or one whose digests somebody took out."""
    state = json.loads((folder / "state.json").read_text())
    del state["sha256"]
    (folder / "state.json").write_text(json.dumps(state))


def test_checkpoints_of_older_versions_without_digests_load(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(step=3), IDENTITY)
    without_digests(tmp_path / "last")
    assert load_parts(tmp_path / "last", trained(), IDENTITY).step == 3


def test_checkpoints_without_a_number_of_losses_load_as_if_no_step_was_skipped(tmp_path):
    saved = Progress(step=7, step_in_epoch=3, loss_sum=12.0, losses=3)
    save_parts(tmp_path / "last", trained(), saved, IDENTITY)
    without_digests(tmp_path / "last")
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    del state["progress"]["losses"]
    (tmp_path / "last" / "state.json").write_text(json.dumps(state))
    loaded = load_parts(tmp_path / "last", trained(), IDENTITY)
    assert loaded == saved
    loaded.end_epoch()
    assert loaded.lowest_loss == 4.0


def test_the_position_alone_is_written_beside_the_same_weights(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(step=3), IDENTITY)
    weights = (tmp_path / "last" / "model.safetensors").read_bytes()
    save_progress(tmp_path / "last", Progress(step=3, epoch=1, finished=True), IDENTITY)
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == weights
    assert load_parts(tmp_path / "last", trained(), IDENTITY) == Progress(step=3, epoch=1, finished=True)


def first_state(saved):
    return next(iter(saved["optimizer"]["state"].values()))


TRAINING = {
    "moments of another shape": lambda saved: first_state(saved).update(exp_avg=torch.zeros(2)),
    "moments that are empty": lambda saved: first_state(saved).update(exp_avg_sq=torch.zeros(0)),
    "moments of integers": lambda saved: first_state(saved).update(
        exp_avg=torch.zeros_like(first_state(saved)["exp_avg"], dtype=torch.int64)
    ),
    "moments that are text": lambda saved: first_state(saved).update(exp_avg="none"),
    "a moment that is missing": lambda saved: first_state(saved).pop("exp_avg_sq"),
    "a step that is a vector": lambda saved: first_state(saved).update(step=torch.zeros(3)),
    "a step that is no number": lambda saved: first_state(saved).update(step=torch.tensor(float("nan"))),
    "parameters that are missing": lambda saved: saved["optimizer"]["param_groups"][0].update(params=[0]),
    "parameters of no state": lambda saved: saved["optimizer"]["state"].update({99: first_state(saved)}),
    "a rate that is text": lambda saved: saved["optimizer"]["param_groups"][0].update(lr="fast"),
    "a rate that is infinite": lambda saved: saved["optimizer"]["param_groups"][0].update(lr=float("inf")),
    "betas that are one number": lambda saved: saved["optimizer"]["param_groups"][0].update(betas=0.9),
    "a switch that is text": lambda saved: saved["optimizer"]["param_groups"][0].update(amsgrad="yes"),
    "no groups": lambda saved: saved["optimizer"].update(param_groups=[]),
    "no optimiser": lambda saved: saved.pop("optimizer"),
    "an optimiser that is a list": lambda saved: saved.update(optimizer=[1, 2]),
    "averages of another shape": lambda saved: saved.update(average={k: v[:1] for k, v in saved["average"].items()}),
    "averages that are missing": lambda saved: saved.update(average={}),
    "updates of the average that are text": lambda saved: saved.update(average_updates="many"),
    "no random states": lambda saved: saved.update(random={}),
    "a short state of torch": lambda saved: saved["random"].update(torch=torch.zeros(3, dtype=torch.uint8)),
    "a state of Python's that is no state": lambda saved: saved["random"].update(python=[3, [1, 2], None]),
    "a state of NumPy's of another length": lambda saved: saved["random"]["numpy"].update(key=torch.zeros(5)),
    "a position of NumPy's that is out of range": lambda saved: saved["random"]["numpy"].update(pos=10**6),
}


@pytest.mark.parametrize("fault", TRAINING)
def test_tampered_training_states_are_one_line_and_change_nothing(tmp_path, fault):
    folder = tmp_path / "last"
    save_parts(folder, trained(), Progress(step=3), IDENTITY)
    without_digests(folder)
    saved = torch.load(folder / "training.pt", weights_only=True)
    TRAINING[fault](saved)
    torch.save(saved, folder / "training.pt")
    model, optimizer, average = trained(seed=1)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), average.state_dict()))
    drawn = random.getstate(), torch.get_rng_state()
    with pytest.raises(TrainingError, match="damaged") as caught:
        load_checkpoint(folder, model, optimizer, average=average, identity=IDENTITY)
    assert "\n" not in str(caught.value)
    assert str((model.state_dict(), optimizer.state_dict(), average.state_dict())) == str(before)
    assert random.getstate() == drawn[0]
    assert torch.equal(torch.get_rng_state(), drawn[1])


STATE = {
    "steps that are text": ("progress", {"step": "three"}),
    "an epoch below 0": ("progress", {"epoch": -5}),
    "steps that no run reaches": ("progress", {"step": 10**400}),
    "a score that is no number": ("progress", {"best_score": None}),
    "a switch that is a number": ("progress", {"finished": 1}),
    "an unknown field": ("progress", {"speed": 3}),
    "a log of a negative length": ("progress", {"log_bytes": -1}),
    "another run": ("identity", {"learning_rate": "fast"}),
}


@pytest.mark.parametrize("fault", STATE)
def test_tampered_positions_are_one_line(tmp_path, fault):
    save_parts(tmp_path / "last", trained(), Progress(step=3), IDENTITY)
    without_digests(tmp_path / "last")
    path = tmp_path / "last" / "state.json"
    state = json.loads(path.read_text())
    part, values = STATE[fault]
    state[part].update(values)
    path.write_text(json.dumps(state))
    with pytest.raises(TrainingError) as caught:
        load_parts(tmp_path / "last", trained(), IDENTITY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "null", "3", '{"progress": 3, "identity": {}}', "[" * 100_000, "\x00", "{}"),
        *(
            '{"progress": {}, "identity": [3]}',
            '{"progress": {}, "identity": "x"}',
            '{"progress": {}, "identity": null}',
        ),
    ],
)
def test_states_that_are_something_else_are_one_line(tmp_path, text):
    save_parts(tmp_path / "last", trained(), Progress(), IDENTITY)
    (tmp_path / "last" / "state.json").write_text(text)
    with pytest.raises(TrainingError, match="not a checkpoint of deixis"):
        load_parts(tmp_path / "last", trained(), IDENTITY)


@pytest.mark.parametrize(
    ("before", "now", "finished"),
    [
        ({"epochs": 2}, {"epochs": 3}, False),
        ({"epochs": 2}, {"epochs": 2}, True),
        ({"epochs": 2, "max_steps": 4}, {"epochs": 2, "max_steps": None}, False),
        ({"epochs": 9, "stop_after_epochs": 2}, {"epochs": 9, "stop_after_epochs": 3}, False),
        ({"epochs": 9, "early_stopping_patience": 2}, {"epochs": 9, "early_stopping_patience": 0}, False),
    ],
)
def test_a_finished_run_is_continued_where_it_may_go_on_longer(tmp_path, before, now, finished):
    save_parts(tmp_path / "last", trained(), Progress(step=3, finished=True), Identity(before))
    assert load_parts(tmp_path / "last", trained(), Identity(now)).finished == finished


def test_a_shorter_run_is_another_run(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(step=3), Identity({"epochs": 5}))
    with pytest.raises(TrainingError, match="epochs was 5, now 3"):
        load_parts(tmp_path / "last", trained(), Identity({"epochs": 3}))


def test_files_get_the_users_mode(tmp_path):
    save_parts(tmp_path / "last", trained(), Progress(), IDENTITY)
    (tmp_path / "plain").touch()
    wanted = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "last").iterdir()} == {wanted}


def test_a_full_disk_while_torch_saves_is_one_line_and_keeps_the_old_content(tmp_path, monkeypatch):
    save_parts(tmp_path / "last", trained(), Progress(step=3), IDENTITY)

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 128 vs 22")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"cannot be written \(.*training\.pt") as caught:
        save_parts(tmp_path / "last", trained(), Progress(step=4), IDENTITY)
    assert "\n" not in str(caught.value)
    assert load_parts(tmp_path / "last", trained(), IDENTITY).step == 3


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "state.json"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, name):
    save_parts(tmp_path / "last", trained(), Progress(), IDENTITY)
    path = tmp_path / "last" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TrainingError, match=r"damaged|not a checkpoint"):
        load_parts(tmp_path / "last", trained(), IDENTITY)


def test_shared_weights_are_written_once_and_loaded(tmp_path):
    first = nn.Linear(2, 2)
    model = nn.ModuleList([first, first])
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(tmp_path / "last", model, optimizer, average=None, progress=Progress(), identity=IDENTITY)
    kept = first.weight.detach().clone()
    nn.init.zeros_(first.weight)
    load_checkpoint(tmp_path / "last", model, optimizer, average=None, identity=IDENTITY)
    assert torch.equal(first.weight, kept)
