"""Results of a command replace only what deixis wrote; whatever else stands there is refused and stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deixis.atomic_files import write_atomic
from deixis.cli.main import run
from deixis.errors import DataError, TrainingError
from deixis.recipes.run.owned_output import MANIFEST, owned_output, writes_output

NAMES = ("predictions.json", "lines.jsonl", "pictures", "images/000000.png")


def command(folder: Path, text: str = "{}") -> None:
    """Writes all of its results."""
    with owned_output(folder, NAMES):
        for name in ("predictions.json", "lines.jsonl", "pictures/a.jpg", "images/000000.png"):
            write_atomic(folder / name, text)


def a_file(path: Path, text: str = "the user's") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


USERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: a_file(folder / "predictions.json"),
    "photographs": lambda folder: a_file(folder / "pictures" / "a.jpg"),
    "a picture": lambda folder: a_file(folder / "images" / "000000.png"),
    "lines": lambda folder: a_file(folder / "lines.jsonl", "half a line"),
    "lines of another tool": lambda folder: a_file(folder / "lines.jsonl", '{"image": "a.jpg"}\n'),
    "a link to photographs": lambda folder: (folder / "pictures").symlink_to(folder.parent),
    "a link to nowhere": lambda folder: (folder / "predictions.json").symlink_to("nowhere"),
    "a folder where a file is written": lambda folder: a_file(folder / "predictions.json" / "x"),
    "a file where a folder is written": lambda folder: a_file(folder / "pictures"),
}


@pytest.mark.parametrize("user", USERS)
def test_what_deixis_did_not_write_is_refused_and_stays(tmp_path: Path, user: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    USERS[user](folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="which deixis did not write") as caught:
        command(folder)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_own_results_are_replaced_and_the_users_other_files_stay(tmp_path: Path) -> None:
    a_file(tmp_path / "photo.jpg")
    a_file(tmp_path / "images" / "mine.jpg")
    (tmp_path / "pictures").mkdir()
    for text in ("1", "2", "3"):
        command(tmp_path, text)
        assert (tmp_path / "predictions.json").read_text() == text
        assert (tmp_path / "pictures" / "a.jpg").read_text() == text
    assert (tmp_path / "photo.jpg").read_text() == (tmp_path / "images" / "mine.jpg").read_text() == "the user's"


def test_results_that_the_user_corrected_are_the_users(tmp_path: Path) -> None:
    command(tmp_path)
    a_file(tmp_path / "predictions.json", "[]")
    with pytest.raises(DataError, match=r"holds predictions\.json, .* or which was changed since"):
        command(tmp_path)
    assert (tmp_path / "predictions.json").read_text() == "[]"


def test_two_commands_share_a_folder(tmp_path: Path) -> None:
    command(tmp_path)
    with owned_output(tmp_path, ("metrics.json",)):
        write_atomic(tmp_path / "metrics.json", "1")
    command(tmp_path)
    assert set(json.loads((tmp_path / MANIFEST).read_text())["written"]) == {*NAMES, "metrics.json"}


def test_what_a_killed_command_left_is_replaced(tmp_path: Path) -> None:
    with owned_output(tmp_path, NAMES):
        begun = (tmp_path / MANIFEST).read_text()
        write_atomic(tmp_path / "predictions.json", "half of the results")
    (tmp_path / MANIFEST).write_text(begun)  # as SIGKILL leaves it
    command(tmp_path)


def test_a_command_that_fails_before_it_writes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model"), owned_output(tmp_path / "out", NAMES):
        raise DataError("no model")
    assert not (tmp_path / "out").exists()


def test_lines_of_an_older_version_are_resumed(tmp_path: Path) -> None:
    a_file(tmp_path / "lines.jsonl", '{"made_by": {}}\n')
    a_file(tmp_path / "predictions.json", "old")
    command(tmp_path, "new")


def test_a_file_of_lines_that_only_mentions_who_made_it_is_the_users(tmp_path: Path) -> None:
    a_file(tmp_path / "lines.jsonl", '"made_by"\n')
    a_file(tmp_path / "predictions.json", "old")
    with pytest.raises(DataError, match="did not write"):
        command(tmp_path, "new")


@pytest.mark.parametrize("content", ["", "[]", '{"written": 3}', "{", "[" * 100_000])
def test_a_damaged_list_claims_nothing(tmp_path: Path, content: str) -> None:
    command(tmp_path)
    (tmp_path / "lines.jsonl").unlink()
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match="did not write"):
        command(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with owned_output(tmp_path, NAMES), pytest.raises(TrainingError, match="another run is writing here"):
        command(tmp_path)


@dataclass(frozen=True)
class Options:
    output: Path | None

    def check(self) -> None:
        pass


def test_a_command_without_a_folder_writes_none(tmp_path: Path) -> None:
    @writes_output("x.json")
    def silent(options: Options) -> str:
        return "done"

    assert silent(Options(None)) == "done"
    a_file(tmp_path / "x.json")
    with pytest.raises(DataError):
        silent(Options(tmp_path))


SCENES = "scenes:split=demo_train,count=2,seed=1"


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "stats.html"
    asked = ["data", "stats", "--data", SCENES, "--output", str(page), "--pictures", "0"]
    assert run(asked) == 0
    assert run(asked) == 0
    for text in ("<!doctype html><title>mine</title>", "\0", ""):
        page.write_text(text)
        with pytest.raises(DataError, match=r"stats\.html: exists and is not of this command"):
            run(asked)
        assert page.read_text() == text


def test_findings_replace_findings_and_no_annotations(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    asked = ["refer", "check", "--data", "scenes:split=refer_seen,count=1,seed=1", "--output", str(labels)]
    assert run(asked) == 0
    assert run(asked) == 0
    for text in ('{"images": [], "annotations": []}', "[]", "[" * 100_000):
        labels.write_text(text)
        with pytest.raises(DataError, match="exists and is not of this command"):
            run(asked)
        assert labels.read_text() == text
