"""`deixis refer check` of clips, and of the folders that `deixis refer train` takes."""

from __future__ import annotations

import json
from pathlib import Path

import clip_miniatures as clips
import pytest
import refer_miniatures as phrases

from deixis.cli.main import run
from deixis.data.checks.refer import ConversationLimits, check_refer
from deixis.data.clip_formats import read_clips
from deixis.data.findings import Findings
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.refer.train import read_data


def found(output: Path) -> dict[str, list[str]]:
    written = json.loads(output.read_text())
    return {part["data"]: [finding["kind"] for finding in part["findings"]] for part in written}


def test_clips_are_looked_at_like_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = clips.mevis(tmp_path / "mevis")
    assert run(["refer", "check", "--data", str(place)]) == 0
    said = capsys.readouterr().out
    assert f"{place}: {len(read_clips(place))} images read" in said
    (sorted((tmp_path / "mevis").rglob("00002.jpg"))[0]).write_bytes(b"no picture")
    assert run(["refer", "check", "--data", str(place)]) == 1
    assert "00002.jpg" in capsys.readouterr().out
    assert run(["refer", "check", "--data", str(place), "--no-decode"]) == 0


def test_a_video_that_training_refuses_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clips.ref_sav(tmp_path)
    video = next(tmp_path.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:900])
    assert run(["refer", "check", "--data", str(file)]) == 1
    assert f"{video.name}: cannot be read as a video" in capsys.readouterr().out


def test_the_folders_of_training_are_read(tmp_path: Path) -> None:
    refcoco, sav = phrases.refcoco(tmp_path / "ref"), tmp_path / "sav"
    clips.sav(sav)
    sa1b = phrases.sa1b(tmp_path / "sa1b")
    code = run(["refer", "check", "--refcoco-dir", str(refcoco), "--sav-dir", str(sav), "--sa1b-dir", str(sa1b),
                "--sa1b-max-samples", "1", "--output", str(tmp_path / "found.json")])  # fmt: skip
    assert code == 0
    kinds = found(tmp_path / "found.json")
    assert list(kinds) == [f"{refcoco}#train", f"{refcoco}#val", f"{refcoco}#testA", str(sa1b), str(sav)]
    assert "no_phrases" in kinds[str(sav)]
    assert "no_phrases" not in kinds[f"{refcoco}#val"]
    assert [part["images"] for part in json.loads((tmp_path / "found.json").read_text())][3] == 1


def test_frames_of_a_clip_are_a_tile_each(tmp_path: Path) -> None:
    seen: list[int] = []

    def encode(turns: object, tiles: int) -> tuple[list[int], list[int]]:
        seen.append(tiles)
        return [7], []

    limits = ConversationLimits(encode, 7, lambda size_hw: 99, max_tokens=9, max_masks=5, clip_frames=3)
    check_refer(read_clips(clips.mevis(tmp_path)), Findings(), limits)
    assert set(seen) == {1, 3}, "1 to compare sentences, 3 for the 4 labelled frames"


class TestOfficialSplits:
    def test_validation_and_test_are_the_authors_own(self, tmp_path: Path) -> None:
        data = read_data(ReferTrainOptions(refcoco_dir=phrases.refcoco(tmp_path)))
        assert [len(part) for part in (data.training, data.validation, data.test or ())] == [1, 1, 1]
        assert data.validation[0].expressions[0].texts == ("the whole thing",)
        assert "own validation split: refcoco val (1 images)" in data.note

    def test_what_is_given_goes_first(self, tmp_path: Path) -> None:
        place = phrases.refcoco(tmp_path)
        data = read_data(ReferTrainOptions(refcoco_dir=place, val_data=(f"{place}#testA",)))
        assert data.validation.name == "refcoco testA"
        data = read_data(ReferTrainOptions(refcoco_dir=place, test_data=(f"{place}#val",)))
        assert (data.validation.name, data.test and data.test.name) == ("refcoco val", "refcoco val")

    def test_other_data_is_held_out_as_ever_and_shares_no_picture_with_them(self, tmp_path: Path) -> None:
        place = phrases.refcoco(tmp_path)
        own = tmp_path / "own"
        own.mkdir()
        names = ["a.jpg", "b.jpg", "c.jpg", Path(str(read_data(
            ReferTrainOptions(refcoco_dir=place)).validation[0].image)).name]  # fmt: skip
        for number, name in enumerate(names):
            phrases.picture(own / name, seed=number)
        file = phrases.plain(own, [{"image": n, "mask": [[phrases.LEFT]], "text": ["it"]} for n in names])
        with pytest.warns(UserWarning, match="left out 1 images that the validation or test split has too"):
            data = read_data(ReferTrainOptions(data=(str(file),), refcoco_dir=place))
        assert len(data.training) == 2 + 1, "one of three is held out, RefCOCO's training split is whole"
        assert len(data.validation) == 1 + 1

    def test_without_a_validation_split_a_part_is_held_out(self, tmp_path: Path) -> None:
        refs = [phrases.refcoco_reference(i, i, image, "train", "a man") for i, image in ((1, 9), (4, 25))]
        data = read_data(ReferTrainOptions(refcoco_dir=phrases.refcoco(tmp_path, refs)))
        assert len(data.training) == len(data.validation) == 1
