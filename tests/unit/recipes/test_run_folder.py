"""Run folders: what no run wrote is never touched, and an earlier run is moved aside, never deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deixis.errors import TrainingError
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.yaml_files import plain_values
from deixis.recipes.run.folder import MARK, is_run, prepare_folder, will_resume
from deixis.recipes.run.repeat import repeat_run

OWN = ("config.yaml", "metrics.jsonl", "report.html", "forgetting.json", "result.json")


def options_for(folder: Path, **changes: bool) -> DetectTrainOptions:
    return replace(DetectTrainOptions(output=folder.parent, experiment_name=folder.name), **changes)


def contents(folder: Path) -> dict[str, str]:
    """Every entry below a folder: a file's text, a link's target, or nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        text = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(folder))] = text
    return found


def start(options: DetectTrainOptions) -> bool:
    """What a run does before its first step."""
    resuming = will_resume(options)
    prepare_folder(options, plain_values(options), resuming)
    return resuming


def written_run(folder: Path, *, last: bool = True, mark: bool = True) -> None:
    """A folder as a run leaves it; one of an older version has no mark."""
    start(options_for(folder))
    for name in ("best", *(["last"] if last else [])):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "model.safetensors").write_text(name)
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "baseline", "step": 0}) + "\n")
    if not mark:
        (folder / MARK).unlink()


def a_file(path: Path, text: str = "the user's") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


USERS = {
    "weights of another tool": lambda folder: a_file(folder / "checkpoints" / "sam2.pt"),
    "teachers": lambda folder: a_file(folder / "teachers" / "biology.txt"),
    "pictures of a tool of that name": lambda folder: a_file(folder / "tensorboard" / "events.out"),
    "a file where a folder is expected": lambda folder: a_file(folder / "checkpoints"),
    "a folder where a file is expected": lambda folder: a_file(folder / "report.html" / "index.html"),
    "a link to data elsewhere": lambda folder: (folder / "checkpoints").symlink_to(folder.parent / "data"),
    "a broken link": lambda folder: (folder / "teachers").symlink_to(folder / "nowhere"),
    "a copy of a checkpoint": lambda folder: a_file(folder / "checkpoints" / "last.previous" / "x.txt"),
    "a draft of the user's": lambda folder: a_file(folder / "checkpoints" / "last.writing" / "x.txt"),
    "a checkpoint of another tool": lambda folder: a_file(folder / "checkpoints" / "last" / "weights.bin"),
    "a log of another tool": lambda folder: a_file(folder / "metrics.jsonl"),
    "results": lambda folder: a_file(folder / "result.json"),
    **{name: (lambda folder, name=name: a_file(folder / name)) for name in OWN},
}


@pytest.mark.parametrize("flag", ["", "overwrite", "auto_resume", "resume"])
@pytest.mark.parametrize("user", USERS)
def test_files_that_no_run_wrote_are_refused_and_stay(tmp_path: Path, user: str, flag: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    a_file(tmp_path / "data" / "images.txt")
    USERS[user](folder)
    before = contents(tmp_path)
    with pytest.raises(TrainingError, match="which no run of deixis wrote; choose another --output") as caught:
        start(options_for(folder, **({flag: True} if flag else {})))
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_other_tools_logs_and_options_together_are_no_run(tmp_path: Path) -> None:
    a_file(tmp_path / "mine" / "config.yaml")
    (tmp_path / "mine" / "metrics.jsonl").write_text('{"loss": 1.0, "step": 3}\n')
    with pytest.raises(TrainingError, match=r"holds config\.yaml, metrics\.jsonl"):
        start(options_for(tmp_path / "mine", overwrite=True))


def test_other_files_of_the_user_do_not_matter_and_stay(tmp_path: Path) -> None:
    a_file(tmp_path / "mine" / "notes.txt")
    (tmp_path / "mine" / "checkpoints").mkdir()
    assert not start(options_for(tmp_path / "mine"))
    a_file(tmp_path / "mine" / "checkpoints" / "sam2.pt")
    start(options_for(tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "the user's"
    assert (tmp_path / "mine.bak" / "checkpoints" / "sam2.pt").read_text() == "the user's"


@pytest.mark.parametrize("mark", [True, False], ids=["ours", "an older version's"])
def test_overwrite_moves_the_whole_earlier_run_aside(tmp_path: Path, mark: bool) -> None:
    folder = tmp_path / "mine"
    written_run(folder, mark=mark)
    with pytest.raises(TrainingError, match="holds a run already"):
        start(options_for(folder))
    for number in ("", "1", "2"):
        before = contents(folder)
        assert not start(options_for(folder, overwrite=True))
        assert contents(tmp_path / f"mine.bak{number}") == before
        assert set(contents(folder)) == {MARK, "config.yaml"}


def test_a_users_folder_named_bak_is_not_used(tmp_path: Path) -> None:
    written_run(tmp_path / "mine")
    a_file(tmp_path / "mine.bak" / "config.yaml")
    (tmp_path / "mine.bak1").symlink_to(tmp_path / "nowhere")
    start(options_for(tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine.bak" / "config.yaml").read_text() == "the user's"
    assert (tmp_path / "mine.bak2" / "metrics.jsonl").exists()


@pytest.mark.parametrize("mark", [True, False], ids=["ours", "an older version's"])
def test_runs_resume(tmp_path: Path, mark: bool) -> None:
    written_run(tmp_path / "mine", mark=mark)
    before = contents(tmp_path / "mine")
    for flag in ("resume", "auto_resume"):
        assert start(options_for(tmp_path / "mine", **{flag: True}))
    after = contents(tmp_path / "mine")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == (set() if mark else {MARK})


def test_auto_resume_with_best_but_without_last_moves_best_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written_run(tmp_path / "mine", last=False)
    assert not start(options_for(tmp_path / "mine", auto_resume=True))
    assert (tmp_path / "mine.bak" / "checkpoints" / "best" / "model.safetensors").read_text() == "best"
    assert "no checkpoint to resume from, was moved to" in capsys.readouterr().err


def test_auto_resume_starts_a_run_that_had_no_checkpoint_yet_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    start(options_for(folder))
    a_file(folder / "metrics.jsonl", '{"kind": "baseline", "step": 0}\n')
    a_file(folder / "checkpoints" / ".last.writing" / "model.safetensors")
    assert not start(options_for(folder, auto_resume=True))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (folder / "checkpoints" / "sam2.pt").touch()
    assert not start(options_for(folder, auto_resume=True))
    assert (tmp_path / "mine.bak" / "checkpoints" / "sam2.pt").exists()


def test_an_interrupted_replacement_counts_as_a_checkpoint_and_looking_changes_nothing(tmp_path: Path) -> None:
    for name in (".last.previous", "last.previous"):
        folder = tmp_path / f"run{name}"
        written_run(folder)
        (folder / "checkpoints" / "last").rename(folder / "checkpoints" / name)
        before = contents(folder)
        assert will_resume(options_for(folder, resume=True))
        assert contents(folder) == before


def test_half_written_models_of_a_killed_run_go_and_the_users_stay(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    written_run(folder)
    for name in ("checkpoints/.best.writing.4711.tmp", "checkpoints/..best.writing.4711.tmp"):
        a_file(folder / name / "model.safetensors")
    a_file(folder / ".report.html.4711.tmp")
    for name in ("checkpoints/.mine.4711.tmp/x", ".notes.12.tmp", "teachers/.draft.tmp"):
        a_file(folder / name)
    start(options_for(folder, resume=True))
    drafts = {path.name for path in folder.rglob(".*.tmp")}
    assert drafts == {".mine.4711.tmp", ".notes.12.tmp", ".draft.tmp"}


def test_where_a_run_writes(tmp_path: Path) -> None:
    named = DetectTrainOptions(output=tmp_path, experiment_name="x")
    assert named.folder == tmp_path / "x"
    assert replace(named, experiment_name="").folder == tmp_path
    assert DetectTrainOptions().folder == Path("runs/detector")


def test_a_run_that_an_older_version_put_one_folder_deeper_is_named(tmp_path: Path) -> None:
    written_run(tmp_path / "detector")
    with pytest.raises(TrainingError, match="give --experiment-name detector"):
        will_resume(DetectTrainOptions(output=tmp_path, resume=True))


def test_a_file_as_the_folder_is_one_line(tmp_path: Path) -> None:
    a_file(tmp_path / "mine")
    with pytest.raises(TrainingError, match="cannot be used"):
        start(options_for(tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine").read_text() == "the user's"


def test_repeated_runs_refuse_a_users_folder(tmp_path: Path) -> None:
    a_file(tmp_path / "mine" / "config.yaml")
    where = {"output": tmp_path, "experiment_name": "mine"}
    options = DetectTrainOptions(data=("x",), model="a/b", seeds=2, overwrite=True, **where)
    with pytest.raises(TrainingError, match="no run of deixis wrote"):
        repeat_run(options, lambda one: pytest.fail("ran"), ())
    assert (tmp_path / "mine" / "config.yaml").read_text() == "the user's"
    assert not is_run(tmp_path / "mine")
