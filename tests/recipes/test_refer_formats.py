"""Each format of phrases and masks, in a faithful miniature, trained on by the real command."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import refer_miniatures as mini
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


def refcoco(folder: Path) -> list[str]:
    place = mini.refcoco(folder)
    return ["--refcoco-dir", str(place), "--val-data", f"{place}#val"]


def openimages(folder: Path) -> list[str]:
    return ["--openimages-dir", str(mini.open_images(folder))]


def plain(folder: Path) -> list[str]:
    """Two objects and an absent one; an image of which nothing is asked."""
    entries = [
        {"image": "a.jpg", "mask": [[mini.LEFT], [mini.RIGHT]], "text": ["the left one", "the right one"]},
        {"image": "b.jpg", "expressions": [{"text": "a dog", "masks": []}, {"text": ["it"], "masks": [[mini.LEFT]]}]},
        {"image": "c.jpg", "expressions": [{"masks": [[mini.LEFT]]}]},
    ]
    mini.picture(folder / "c.jpg", seed=3)
    return ["--data", str(mini.plain(folder, entries))]


def coco(folder: Path) -> list[str]:
    return ["--data", str(mini.coco(folder))]


def labelme(folder: Path) -> list[str]:
    for number, points in enumerate(([[2, 2], [12, 2], [12, 22], [2, 22]], [[20, 5], [35, 9], [22, 25]])):
        mini.picture(folder / f"{number}.jpg", seed=number)
        shape = {"label": "nut", "points": points, "shape_type": "polygon", "group_id": None, "flags": {}}
        content = {"version": "5.0", "shapes": [shape], "imagePath": f"{number}.jpg", "imageData": None}
        (folder / f"{number}.json").write_text(json.dumps({**content, "imageHeight": 30, "imageWidth": 40}))
    return ["--data", str(folder)]


def short(model: Path, output: Path, *more: str) -> list[str]:
    """Two steps on the given data only: the scenes of the common arguments are taken out."""
    words = refer_arguments(model, output, "--max-steps", "2", "--epochs", "2", "--no-baseline", "--no-report", *more)
    for flag in ("--val-data", "--data"):
        at = words.index(flag)
        words[at : at + 2] = []
    return words


@pytest.mark.parametrize("written", [refcoco, openimages, plain, coco, labelme], ids=lambda written: written.__name__)
def test_two_steps(model, tmp_path, deixis, written) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    code, _, err = deixis(short(model, tmp_path, *written(folder)))
    assert code == 0, err
    steps = records(tmp_path / "segmenter", "step")
    assert len(steps) == 2
    assert all(step["loss_language"] > 0 and step["loss_mask"] > 0 for step in steps)
    (evaluation, *_) = records(tmp_path / "segmenter", "evaluation")
    assert evaluation["phrases"] > 0


def test_images_without_a_sentence_are_counted(model, tmp_path, deixis) -> None:
    """They would make a conversation without an image in it."""
    (tmp_path / "data").mkdir()
    with pytest.warns(UserWarning, match="left out 1 images without a sentence"):
        assert deixis(short(model, tmp_path, *plain(tmp_path / "data"), "--dry-run"))[0] == 0


def test_a_first_batch_of_absent_objects_sets_off_no_alarm(model, tmp_path, deixis) -> None:
    """They have no mask loss by design: the language model learns from them by its words alone."""
    entries = [{"image": name, "expressions": [{"text": "a dog", "masks": []}]} for name in ("a.jpg", "b.jpg")]
    data = mini.plain(_made(tmp_path / "data"), entries)
    code, _, err = deixis(short(model, tmp_path, "--data", str(data)))
    assert code == 0, err
    assert {step["loss_mask"] for step in records(tmp_path / "segmenter", "step")} == {0.0}


class Harm:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_malicious_pickle_ends_the_command_and_is_not_run(model, tmp_path, deixis, monkeypatch) -> None:
    arguments = short(model, tmp_path, *refcoco(_made(tmp_path / "data")))
    file = tmp_path / "data/refcoco/refs(unc).p"
    file.write_bytes(pickle.dumps([*pickle.loads(file.read_bytes()), Harm()]))  # noqa: S301  # our own bytes
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    code, _, err = deixis(arguments)
    assert (code, ran) == (2, [])
    assert "refs(unc).p" in err


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_quick_takes_the_smaller_of_its_own_and_the_users_limits(model, tmp_path, deixis) -> None:
    arguments = refer_arguments(model, tmp_path, "--quick", "--max-steps", "1", "--max-val-images", "1", "--no-report")
    code, _, err = deixis([*arguments, "--no-baseline"])
    assert code == 0, err
    assert len(records(tmp_path / "segmenter", "step")) == 1
    (evaluation, *_) = records(tmp_path / "segmenter", "evaluation")
    assert evaluation["images"] == 1


@pytest.mark.parametrize("options", [("--max-tokens", "20"), ()], ids=["a conversation too long", "a damaged picture"])
def test_a_dry_run_refuses_what_the_run_would(model, tmp_path, deixis, options) -> None:
    data = plain(_made(tmp_path / "data"))
    assert deixis(short(model, tmp_path, *data, "--dry-run"))[0] == 0
    if not options:
        (tmp_path / "data" / "b.jpg").write_bytes((tmp_path / "data" / "b.jpg").read_bytes()[:200])
    code, _, err = deixis(short(model, tmp_path, *data, "--dry-run", *options))
    assert code == 2
    assert "--max-tokens" in err if options else "b.jpg" in err
