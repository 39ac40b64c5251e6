"""Commands on a review: what was corrected is exported, trained on and reported."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from small_reviews import small_review
from tiny_runs import VAL_SCENES, train_arguments

from deixis.data.formats import read_dataset
from deixis.options.detect_train import DetectData
from deixis.recipes.detect.data import read_training_data
from deixis.review import actions
from deixis.review.build import build_review


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """Picture 1 accepted, of picture 2 a name corrected and a box rejected, picture 3 not looked at."""
    with small_review(tmp_path / "review") as store:
        actions.finish_image(store, 1, version=1, annotator="ann")
        actions.act_on_object(store, "rename", 2, version=1, annotator="ann", label="größe")
        actions.act_on_object(store, "accept", 3, version=1, annotator="ann")
        actions.act_on_object(store, "reject", 4, version=1, annotator="bob")
        return store.file


def test_an_export_says_what_was_corrected_and_lost(deixis: Any, reviewed: Path, tmp_path: Path) -> None:
    code, out, err = deixis(["review", "export", str(reviewed), "--output", str(tmp_path / "out")])
    assert code == 0, err
    assert (
        "review.db: 2 images reviewed by 2 people; objects: 2 accepted, 1 renamed, 0 moved, 0 drawn, 1 rejected" in out
    )
    read = read_dataset(tmp_path / "out")
    labels = [[read.vocabulary.names[i] for i in read[n].instances.class_ids] for n in range(len(read))]
    assert labels == [["cat"], ["größe", "cat"]]
    assert read.vocabulary.category_ids == (7, 3, 5)
    code, out, err = deixis(
        ["review", "export", str(reviewed), "--part", "all", "--to", "yolo", "--output", str(tmp_path / "all")]
    )
    assert code == 0, err
    assert len(read_dataset(tmp_path / "all" / "data.yaml")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["review", "export"], "--db is required"),
        (["review", "export", "missing.db", "--output", "out"], "missing.db: no such file"),
        (["review", "serve"], "--data is required"),
        (["review", "serve", "labels.json", "--db", "review.txt"], "--db: expected a file that ends in .db"),
        (["review", "serve", "labels.json", "--host", "0.0.0.0"], "open to other machines; give --token"),
        (["review", "serve", "missing.json"], "missing.json: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(deixis: Any, arguments: list[str], said: str) -> None:
    code, _, err = deixis(arguments)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def reviewed_scenes(folder: Path) -> Path:
    """Two of four generated pictures, reviewed."""
    with closing(build_review(folder / "review.db", read_dataset(VAL_SCENES), source=VAL_SCENES)) as store:
        for number in (1, 2):
            actions.finish_image(store, number, version=1, annotator="ann")
    return folder / "review.db"


LINE = "review.db: 2 images reviewed by 1 people; objects: "


def test_what_a_run_reads_of_a_review(tmp_path: Path) -> None:
    file = reviewed_scenes(tmp_path)
    for split, images in (("", 2), ("#all", 4)):
        read = read_training_data(DetectData(data=(f"{file}{split}", VAL_SCENES), val_data=VAL_SCENES))
        assert len(read.training) == images + 4
        assert len(read.reviewed) == 1
        assert read.reviewed[0].startswith(LINE)


@pytest.mark.slow
def test_a_run_trains_on_what_was_reviewed_and_reports_the_corrections(
    deixis: Any, tiny_model: Path, tmp_path: Path
) -> None:
    file = reviewed_scenes(tmp_path)
    arguments = train_arguments(tiny_model, tmp_path, "--data", str(file), "--epochs", "1")
    code, out, err = deixis(arguments)
    assert code == 0, err
    assert LINE in out
    assert "2 training and 4 validation images" in out
    assert f"Trained on corrections of people, {LINE}" in (tmp_path / "detector" / "report.html").read_text()
