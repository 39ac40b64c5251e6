"""`deixis refer check`: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import refer_miniatures as mini
from local_hub import use_local_hub
from released_segmenters import released_bundle, write_released
from small_segmenters import tiny_segmenter

from deixis.cli.main import run
from deixis.data.checks.refer import ConversationLimits
from deixis.data.pixels.cuts import Tiling
from deixis.data.pixels.tiles import tiles_of
from deixis.data.refer.collate import Views, collate_questions
from deixis.data.refer.loading import QuestionDataset
from deixis.data.refer_formats import read_refer
from deixis.errors import DataError, ModelError, OptionError
from deixis.models.sa2va import ConversationTokens, save_sa2va
from deixis.options.refer_check import ReferCheckOptions
from deixis.recipes.refer.check import check_refer_data, tile_counter

GOOD = {"image": "a.jpg", "mask": [[mini.LEFT]], "text": ["the left one"]}
BAD = {"image": "b.jpg", "mask": [[mini.LEFT]], "text": ["one", "two"]}


def test_good_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["refer", "check", "--data", str(mini.plain(tmp_path, [GOOD]))]) == 0
    said = capsys.readouterr().out
    assert "1 images read, 1 sentences, 1 masks, 0 expressions without an object" in said
    assert "0 errors, 0 warnings, 0 notes" in said


def test_errors_are_printed_counted_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mini.plain(tmp_path, [GOOD, BAD, {**BAD, "image": "c.jpg"}])
    output = tmp_path / "findings.json"
    assert run(["refer", "check", "--data", str(path), "--output", str(output)]) == 1
    said = capsys.readouterr().out
    assert "errors: 2\n  records with missing or invalid values: 2 (record_malformed)" in said
    assert said.endswith("2 errors, 0 warnings, 0 notes\n")
    assert "entry 2 (b.jpg): 1 masks for 2 texts" in said
    assert "entry 3 (c.jpg): image file not found" in said
    (written,) = json.loads(output.read_text())
    assert (written["data"], written["images"], written["counts"]["error"]) == (str(path), 1, 2)
    assert [finding["kind"] for finding in written["findings"]] == ["record_malformed", "record_malformed"]
    assert run(["refer", "check", "--data", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [written]
    assert run(["refer", "check", "--data", str(path), "--show", "1"]) == 1
    assert "… and 1 more (--show 0 lists all)" in capsys.readouterr().out


def test_older_findings_are_replaced(tmp_path: Path) -> None:
    output = tmp_path / "findings.json"
    output.write_text(json.dumps({"labels.json": {"facts": {"images": 1}, "findings": []}}))
    assert run(["refer", "check", "--data", str(mini.plain(tmp_path, [GOOD])), "--output", str(output)]) == 0
    assert json.loads(output.read_text())[0]["images"] == 1
    output.write_text('{"mine": 1}')
    with pytest.raises(DataError):
        check_refer_data(ReferCheckOptions(data=(str(mini.plain(tmp_path, [GOOD])),), output=output))


def test_what_readers_say_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mini.open_images(tmp_path)
    (folder / "train" / "0c2d.jpg").unlink()
    assert run(["refer", "check", "--data", str(folder)]) == 0
    assert "left out 1 images, which are not there" in capsys.readouterr().out


def test_several_data_sets_and_so_many_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sa1b, coco = mini.sa1b(tmp_path / "s"), mini.coco(_made(tmp_path / "c"))
    assert run(["refer", "check", "--data", str(sa1b), str(coco), "--max-images", "1", "--no-decode"]) == 0
    said = capsys.readouterr().out
    assert f"{sa1b}: 1 images read, 0 sentences, 2 masks" in said
    assert f"{coco}: 1 images read, 2 sentences, 3 masks" in said
    assert "masks without a sentence: 2 (mask_wordless)" in said


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_with_a_models_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ConversationLimits(
        lambda turns, tiles: ([7] * 30, []), 7, tile_counter(Tiling(16, 2), 4), max_tokens=20, max_masks=5
    )
    assert check_refer_data(ReferCheckOptions(data=(str(mini.plain(tmp_path, [GOOD])),)), limits) == 1
    said = capsys.readouterr().out
    assert "longest conversation: 30 tokens" in said
    assert "30 tokens, 20 are allowed: 10 of 1 [SEG] would be lost" in said


@pytest.fixture(scope="module", params=["ours", "released"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConversationTokens]:
    """A segmenter's folder of which the weights are gone, and what it writes with."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "ours":
        bundle = tiny_segmenter()
        save_sa2va(bundle, folder)
    else:
        bundle = released_bundle("Qwen2ForCausalLM")
        write_released(bundle, "Qwen2ForCausalLM", folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return folder, ConversationTokens.of(bundle)


@pytest.mark.parametrize("name", ["builtin", "RUN", "me/segmenter"])
def test_a_model_is_named_as_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tmp_path / "mine" / "teachers" / "sa2va"
    save_sa2va(tiny_segmenter(), teacher)
    use_local_hub(monkeypatch, tmp_path / "cache", {"me/segmenter": teacher})
    data = str(mini.plain(tmp_path / "data", [GOOD]))
    model = str(tmp_path / "mine") if name == "RUN" else name
    assert check_refer_data(ReferCheckOptions(data=(data,), model=model, max_tiles=1)) == 0


def test_a_model_is_read_without_its_weights(
    model: tuple[Path, ConversationTokens], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds what training refuses: the longest conversation passes at its own length and not below."""
    folder, tokens = model
    path = mini.plain(tmp_path, [GOOD, {**GOOD, "image": "b.jpg", "text": ["the thing that is further to the left"]}])
    arguments = ["refer", "check", "--data", str(path), "--model", str(folder), "--max-tiles", "1"]
    assert run([*arguments, "--output", str(tmp_path / "found.json")]) == 0
    longest = json.loads((tmp_path / "found.json").read_text())[0]["longest_tokens"]
    assert longest > tokens.tokens_per_tile
    assert run([*arguments, "--max-tokens", str(longest)]) == 0
    assert run([*arguments, "--max-tokens", str(longest - 1)]) == 1
    assert f"{longest} tokens, {longest - 1} are allowed" in capsys.readouterr().out

    views = Views(64, 1, 64, 16)
    questions = QuestionDataset(read_refer(path), 5, seed=0)
    drawn = [questions[epoch, 1] for epoch in range(40)]
    lengths = {len(tokens(question.turns, 1)[0]) for question in drawn}
    assert max(lengths) == longest
    with pytest.raises(DataError, match="--max-tokens"):
        collate_questions(drawn, tokens, views, 0, longest - 1)


def test_a_folder_that_is_no_segmenter(tmp_path: Path) -> None:
    path = mini.plain(tmp_path, [GOOD])
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="model_type is 'bert'"):
        check_refer_data(ReferCheckOptions(data=(str(path),), model=str(tmp_path)))


@pytest.mark.parametrize("size_hw", [(10, 10), (10, 40), (64, 48), (100, 31)])
def test_tiles_are_counted_as_they_are_cut(size_hw: tuple[int, int]) -> None:
    assert tile_counter(Tiling(8, 2), 6)(size_hw) == len(tiles_of(np.zeros((*size_hw, 3), np.uint8), 8, 6))


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--data"):
        ReferCheckOptions().check()
    with pytest.raises(OptionError, match="--max-images: expected 1 or more, got 0"):
        ReferCheckOptions(data=("a",), max_images=0).check()
    with pytest.raises(OptionError, match="--tiny: expected 0 or more, got -1"):
        ReferCheckOptions(data=("a",), tiny=-1).check()
    with pytest.raises(OptionError, match="--max-tokens: expected 1 or more, got 0"):
        ReferCheckOptions(data=("a",), max_tokens=0).check()
    with pytest.raises(DataError, match="no such file"):
        check_refer_data(ReferCheckOptions(data=(str(tmp_path / "nothing"),)))
