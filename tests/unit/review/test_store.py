"""The state of a review: nothing is lost, nothing is overwritten unseen, everything can be undone."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from small_reviews import small_review

from deixis.errors import DataError
from deixis.review import actions
from deixis.review.store import ConflictError, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return small_review(tmp_path)


def state(store: Store) -> list[object]:
    """Objects as people see them."""
    rows = store.rows("SELECT label, x1, y1, x2, y2, mask, status FROM objects WHERE status != 'deleted' ORDER BY id")
    return [*rows, *store.rows("SELECT status FROM images ORDER BY id")]


def test_a_prediction_that_shows_a_label_is_its_score_and_others_are_objects(store: Store) -> None:
    rows = store.rows("SELECT image, label, origin, score, model FROM objects ORDER BY id")
    assert [(row["image"], row["label"], row["origin"], row["score"]) for row in rows] == [
        (1, "cat", "label", 0.9),
        (2, "<b>dog</b>", "label", None),
        (2, "cat", "label", None),
        (2, "cat", "model", 0.8),
        (3, "cat", "model", 0.7),
    ]
    assert {row["model"] for row in rows} == {"runs/a"}
    first = json.loads(store.row("objects", 2)["first"])
    assert first == {"label": "<b>dog</b>", "box": [5.0, 5.0, 25.0, 15.0], "mask": None}


def test_every_action_is_undone_in_turn_and_who_did_it_is_kept(store: Store) -> None:
    states = [state(store)]
    for kind in ("accept", "reject", "delete", "reopen"):
        actions.act_on_object(store, kind, 1, version=store.row("objects", 1)["version"], annotator="ann")
        states.append(state(store))
    steps = (
        lambda: actions.act_on_object(store, "rename", 2, version=1, annotator="ann", label=" new  name "),
        lambda: actions.act_on_object(store, "move", 2, version=2, annotator="ann", box=[30, 20, 10, -5]),
        lambda: actions.add_object(store, 3, "cat", annotator="ann", box=[0, 0, 5, 5]),
        lambda: actions.finish_image(store, 2, version=store.row("images", 2)["version"], annotator="ann"),
        lambda: actions.unfinish_image(store, 2, version=store.row("images", 2)["version"], annotator="ann"),
    )
    for step in steps:
        step()
        states.append(state(store))
    row = store.row("objects", 2)
    assert (row["label"], row["annotator"]) == ("new  name", "ann")
    assert [row[name] for name in ("x1", "y1", "x2", "y2")] == [10, 0, 30, 20], "inside of the image"
    assert store.names[-1] == "new  name"
    for before in reversed(states[:-1]):
        actions.undo(store, "ann")
        assert state(store) == before
    with pytest.raises(DataError, match="ann has nothing to undo"):
        actions.undo(store, "ann")
    log = store.rows("SELECT kind, undoes FROM actions ORDER BY id")
    assert len(log) == 18
    assert [row["undoes"] for row in log[9:]] == list(range(9, 0, -1))


def test_what_somebody_else_changed_is_not_overwritten(store: Store) -> None:
    actions.act_on_object(store, "rename", 1, version=1, annotator="ann", label="größe")
    with pytest.raises(ConflictError) as caught:
        actions.act_on_object(store, "reject", 1, version=1, annotator="bob")
    assert caught.value.current["annotator"] == "ann"
    with pytest.raises(ConflictError):  # bob finishes an image in which he has not seen ann's change
        actions.finish_image(store, 1, version=1, annotator="bob")
    actions.act_on_object(store, "reject", 1, version=2, annotator="bob")
    with pytest.raises(ConflictError):
        actions.undo(store, "ann")
    assert store.row("objects", 1)["status"] == "rejected"
    assert len(store.rows("SELECT * FROM actions")) == 2, "a refused action leaves no trace"


def test_two_reviewers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two connections, as two servers have; of two that saw the same version one gets through."""
    small_review(tmp_path).close()

    def work(name: str) -> int:
        through = 0
        with Store(tmp_path / "review.db") as mine:
            for _ in range(25):
                version = mine.row("objects", 1)["version"]
                try:
                    actions.act_on_object(mine, "rename", 1, version=version, annotator=name, label=name)
                    through += 1
                except ConflictError:
                    pass
        return through

    with ThreadPoolExecutor(2) as pool:
        through = sum(pool.map(work, ("ann", "bob")))
    with Store(tmp_path / "review.db") as store:
        assert through >= 25
        assert store.row("objects", 1)["version"] == 1 + through
        assert len(store.rows("SELECT * FROM actions")) == through


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "rename", "label": " \t"}, "label: expected a name"),
        ({"kind": "move", "box": [1, 2, 3]}, "box: expected four finite numbers"),
        ({"kind": "move", "box": [1, 2, float("nan"), 4]}, "box: expected four finite numbers"),
        ({"kind": "move", "box": [70, 2, 90, 4]}, "box: has less than one pixel inside"),
        ({"number": 99, "kind": "accept"}, "objects: no id 99"),
    ],
)
def test_what_cannot_be_done_changes_nothing(change: dict[str, object], said: str, store: Store) -> None:
    before = state(store)
    with pytest.raises(DataError, match=said):
        actions.act_on_object(store, **{"number": 1, "version": 1, "annotator": "ann", **change})  # type: ignore[arg-type]
    for mask in ({}, {"size": [40, 60], "counts": [2400]}, {"size": [40, 60], "counts": [5]}):
        with pytest.raises(DataError, match="mask: "):
            actions.add_object(store, 1, "cat", annotator="ann", mask=mask)
    assert state(store) == before
    assert store.names == ["cat", "<b>dog</b>", "größe"]


def test_a_review_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    small_review(tmp_path).close()
    content = (tmp_path / "review.db").read_bytes()
    with pytest.raises(DataError, match=r"review.db: exists; give another --db, or open it"):
        small_review(tmp_path)
    assert (tmp_path / "review.db").read_bytes() == content
    (tmp_path / "other.db").write_text("no database")
    for name in ("other.db", "missing.db"):
        with pytest.raises(DataError, match=name):
            Store(tmp_path / name)


def worker(file: Path, pipe: int) -> None:
    """One action after another; each is told, as a browser would be, once it is done."""
    store = Store(file)
    while True:
        version = store.row("objects", 1)["version"]
        label = f"name {version % 7}"
        actions.act_on_object(store, "rename", 1, version=version, annotator="ann", label=label)
        os.write(pipe, f"{version + 1}\n".encode())


def test_a_server_that_is_killed_at_any_moment_loses_no_action(tmp_path: Path) -> None:
    """A hundred moments; a process that shares nothing but the file looks after each."""
    small_review(tmp_path).close()
    file, random = tmp_path / "review.db", Random(0)
    for _ in range(100):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                worker(file, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as told:
            lines = [told.readline() for _ in range(random.randint(1, 4))]
            for _ in range(random.randint(0, 20_000)):  # anywhere in the next action
                pass
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines += told.readlines()
        with Store(file) as store:
            row = store.row("objects", 1)
            log = store.rows("SELECT COUNT(*) AS n, MAX(id) AS latest FROM actions")[0]
            assert row["version"] >= int(lines[-1]), "what was told is there"
            assert row["version"] == 1 + log["n"], "an action is whole or absent"
            latest = store.row("actions", log["latest"])
            assert json.loads(latest["changes"])[0]["after"]["label"] == row["label"]
    with Store(file) as store:
        assert store.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
