"""`--placeholder-captions`: masks without phrases train with one fixed phrase, and nothing is described first."""

from __future__ import annotations

import json
from pathlib import Path

import clip_miniatures as clips
import pytest
import refer_miniatures as mini
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records

from deixis.cli.main import run
from deixis.data.clip_formats import read_clips
from deixis.data.sets.mask_regions import PHRASE, with_placeholders
from deixis.inference.refer.cycle import Cycle
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.refer.train import read_data
from deixis.recipes.run.outputs import warn_once

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


@pytest.fixture(autouse=True)
def _nothing_is_described(monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("captions were written")

    monkeypatch.setattr(Cycle, "run", refused)


def plain_masks(folder: Path) -> Path:
    """Four images, a mask without a phrase in each, a phrase beside it in the first."""
    folder.mkdir()
    entries = []
    for number in range(4):
        mini.picture(folder / f"{number}.jpg", seed=number)
        expressions = [{"id": 1, "masks": [mini.rle([mini.LEFT])]}]
        if number == 0:
            expressions.append({"id": 2, "text": "the right", "masks": [mini.rle([mini.RIGHT])]})
        entries.append({"image": f"{number}.jpg", "expressions": expressions})
    (folder / "masks.json").write_text(json.dumps(entries))
    return folder / "masks.json"


def sav(folder: Path) -> Path:
    for number in (1, 2):
        clips.sav(folder, number)
    return folder


SOURCES = {
    "sa1b_dir": (lambda folder: ("--sa1b-dir", str(mini.sa1b(folder)), "--sa1b-max-samples", "2"), "2 images; 4 phr"),
    "sav_dir": (lambda folder: ("--sav-dir", str(sav(folder)), "--clip-frames", "2"), "2 clips; 6 phrases"),
    "data": (lambda folder: ("--data", str(plain_masks(folder))), "4 images; 5 phrases"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_masks_alone_are_planned_and_trained_on(model, tmp_path, deixis, name) -> None:
    given, plan = SOURCES[name]
    words = refer_arguments(model, tmp_path, "--max-steps", "1", "--no-baseline", "--no-report")
    at = words.index("--data")
    words[at : at + 2] = []
    words += [*given(tmp_path / "set"), "--placeholder-captions"]
    code, out, err = deixis([*words, "--dry-run"])
    assert code == 0, err
    assert plan in out
    code, out, err = deixis(words)
    assert code == 0, err
    assert plan in out
    (step,) = records(tmp_path / "segmenter", "step")
    assert step["loss_mask"] > 0
    assert not (tmp_path / "segmenter/captions").exists()


def test_phrases_stay_and_validation_has_placeholders_too(tmp_path) -> None:
    data = read_data(
        ReferTrainOptions(
            data=(str(plain_masks(tmp_path / "a")),),
            val_data=(str(mini.sa1b(tmp_path / "b")),),
            placeholder_captions=True,
        )
    )
    assert [e.texts for e in data.training[0].expressions] == [(PHRASE,), ("the right",)]
    assert {e.texts for i in range(3) for e in data.validation[i].expressions} == {(PHRASE,)}


def test_masklets_keep_their_masks(tmp_path) -> None:
    clips.sav(tmp_path)
    plain = read_clips(tmp_path)[0]
    named = with_placeholders(read_clips(tmp_path))[0]
    assert [e.masklets for e in named.expressions] == [e.masklets for e in plain.expressions]
    assert {e.texts for e in named.expressions} == {(PHRASE,)}


@pytest.mark.parametrize("make", [mini.sa1b, sav])
def test_folders_of_masks_as_plain_data(tmp_path, make) -> None:
    data = read_data(ReferTrainOptions(data=(str(make(tmp_path / "a")),), placeholder_captions=True))
    assert {e.texts for e in data.training[0].expressions} == {(PHRASE,)}


def test_it_warns_that_no_language_is_taught(tmp_path, capsys) -> None:
    warn_once.cache_clear()
    read_data(ReferTrainOptions(sa1b_dir=mini.sa1b(tmp_path / "a"), placeholder_captions=True))
    assert "teaches no language" in capsys.readouterr().err


def test_not_beside_learning_to_describe(model, tmp_path, deixis) -> None:
    words = refer_arguments(model, tmp_path, "--placeholder-captions", "--caption-share", "0.3")
    code, _, err = deixis(words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--caption-share: expected 0 with --placeholder-captions" in err
    assert "got 0.3" in err


def test_without_it_the_way_out_is_named(model, tmp_path, deixis) -> None:
    words = refer_arguments(model, tmp_path)
    words[words.index("--data") + 1] = str(mini.sa1b(tmp_path / "a"))
    code, _, err = deixis(words)
    assert code == 2
    assert "--placeholder-captions" in err


def test_check_looks_at_the_data_as_training_does(tmp_path) -> None:
    places = (mini.sa1b(tmp_path / "sa1b"), sav(tmp_path / "sav"))
    words = ["refer", "check", "--sa1b-dir", str(places[0]), "--sav-dir", str(places[1])]
    kinds = {}
    for name, more in (("plain", []), ("placeholders", ["--placeholder-captions"])):
        output = tmp_path / f"{name}.json"
        assert run([*words, *more, "--output", str(output)]) == 0
        parts = json.loads(output.read_text())
        kinds[name] = {finding["kind"] for part in parts for finding in part["findings"]}
        assert [part["phrases"] for part in parts] == ([6, 6] if more else [0, 0])
    assert {"no_phrases", "mask_wordless", "image_unasked"} <= kinds["plain"]
    assert not {"no_phrases", "mask_wordless", "image_unasked", "phrase_ambiguous"} & kinds["placeholders"]
