"""`--tokenizer` for released segmenters whose own tokenizer cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from released_segmenters import released_bundle, write_released
from tiny_refer_runs import refer_arguments, write_tiny_segmenter

from deixis.models.sa2va import load_sa2va

LANGUAGE = "InternLM2ForCausalLM"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A released model without a tokenizer, and its tokenizer."""
    place = tmp_path_factory.mktemp("released")
    bundle = released_bundle(LANGUAGE)
    write_released(bundle, LANGUAGE, place / "model")
    for file in (place / "model").glob("*token*"):
        file.unlink()
    bundle.tokenizer.save_pretrained(place / "words")
    return place / "model", place / "words"


def test_conversion(deixis, folders, tmp_path) -> None:
    model, words = folders
    command = ["model", "convert", model, "--output", tmp_path / "mine"]
    assert deixis(command)[0] == 2
    code, _, err = deixis([*command, "--tokenizer", words])
    assert code == 0, err
    assert len(load_sa2va(tmp_path / "mine").tokenizer) == len(load_sa2va(model, tokenizer=words).tokenizer)


def test_training(deixis, folders, tmp_path) -> None:
    model, words = folders
    command = refer_arguments(model, tmp_path, "--dry-run")
    assert deixis(command)[0] == 2
    code, _, err = deixis([*command, "--tokenizer", str(words)])
    assert code == 0, err


def test_not_for_a_model_that_has_its_own(deixis, folders, tmp_path) -> None:
    mine = write_tiny_segmenter(tmp_path / "mine")
    code, _, err = deixis(refer_arguments(mine, tmp_path, "--dry-run", "--tokenizer", str(folders[1])))
    assert (code, len(err.splitlines())) == (2, 1)
    assert "another is for released Sa2VA folders only" in err
