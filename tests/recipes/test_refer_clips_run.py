"""Clips, and masks without sentences, through `deixis refer train`: trained on, captioned first, gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import clip_miniatures as clips
import pytest
import refer_miniatures as mini
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records

from deixis.data.clip_formats import read_clips
from deixis.data.sets.clip_stills import ClipStills
from deixis.inference.refer.cycle import Cycle
from deixis.options.refer_train import PublicData, ReferTrainOptions
from deixis.recipes.refer.data.generated import read_sav
from deixis.recipes.refer.train import read_data

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


def short(model: Path, output: Path, *more: str) -> list[str]:
    """One step on the given data only."""
    words = refer_arguments(model, output, "--max-steps", "1", "--no-baseline", "--no-report", *more)
    at = words.index("--data")
    words[at : at + 2] = []
    return words


CLIPS = {
    "mevis": lambda folder: str(clips.mevis(folder)),
    "davis": lambda folder: f"{clips.davis(folder)}#train",
    "ref_youtube_vos": lambda folder: str(clips.ref_youtube_vos(folder)),
    "ref_sav": lambda folder: str(clips.ref_sav(folder)),
}


@pytest.mark.filterwarnings("ignore:.*left out 1 images without a sentence")  # a video without masks
@pytest.mark.parametrize("name", CLIPS)
def test_each_format_of_clips_is_trained_on(model, tmp_path, deixis, name) -> None:
    data = ("--data", CLIPS[name](tmp_path / "data"), "--batch-size", "1", "--clip-frames", "2")
    code, out, err = deixis(short(model, tmp_path, *data))
    assert code == 0, err
    assert "1 clips" in out
    (step,) = records(tmp_path / "segmenter", "step")
    assert step["loss_mask"] > 0


def test_clips_are_held_out_whole_and_measured_by_a_frame_of_each() -> None:
    options = ReferTrainOptions(
        data=("scenes:split=clip_train,count=12,seed=1", "scenes:split=refer_train,count=10,seed=1")
    )
    data = read_data(options)
    training, validation = data.training, data.validation
    assert (len(training), len(validation)) == (11 + 9, 1 + 1)
    (still,) = [s for s in (validation[i] for i in range(2)) if "clip" in s.source]
    number = int(still.source.split("clip ")[1].split()[0])
    trained = [training[i] for i in range(len(training))]
    assert number not in {int(clip.video_id) for clip in trained if hasattr(clip, "video_id")}
    assert any(expression.masks_rle for expression in still.expressions)


class TestSav:
    """The miniature's frames 0 and 4 show fewer objects than frame 8, which shows all three."""

    def test_a_still_shows_most_objects(self, tmp_path) -> None:
        clips.sav(tmp_path)
        still = ClipStills(read_clips(tmp_path), masks_only=True)[0]
        assert still.source.endswith("frame 8")
        assert clips.columns([e.masks_rle[0] for e in still.expressions]) == [8, 20, 34]

    def test_captions_belong_to_the_masklets_they_were_made_of(self, tmp_path) -> None:
        """Object 1 is not to be seen in the frame that is described: its neighbour's caption must not become its."""
        rows = [[clips.rle(clips.box(0)), None, clips.rle(clips.box(30))], [None, clips.rle(clips.box(20)), None]]
        clips.sav(tmp_path / "sav", rows=rows)
        folder = tmp_path / "runs/segmenter/captions/sav"
        folder.mkdir(parents=True)
        said = [{"id": 1, "text": ["first"]}, {"id": 2, "text": ["third"]}]
        (folder / "captions.json").write_text(json.dumps([{"id": 0, "expressions": said}]))
        clip = read_sav(PublicData(sav_dir=tmp_path / "sav"), tmp_path / "runs/segmenter")[0]
        assert [(e.texts, e.masklets) for e in clip.expressions] == [(("first",), (0,)), (("third",), (2,))]

    def test_masklets_are_described_and_trained_on(self, model, tmp_path, deixis) -> None:
        for number in (1, 2):
            clips.sav(tmp_path / "sav", number)
        code, out, err = deixis(
            short(model, tmp_path, "--sav-dir", str(tmp_path / "sav"), "--cycle-threshold", "0", "--clip-frames", "2")
        )
        assert code == 0, err
        assert "6 regions" in out
        assert "2 clips; 6 phrases" in out
        (step,) = records(tmp_path / "segmenter", "step")
        assert step["loss_mask"] > 0


class TestSa1b:
    def test_so_many_images_are_described_once_and_trained_on(self, model, tmp_path, deixis, monkeypatch) -> None:
        mini.sa1b(tmp_path / "sa1b", tuple(range(1, 9)))
        described: list[int] = []
        run = Cycle.run

        def counting(self, dataset, batch_size, indices):
            described.extend(indices)
            return run(self, dataset, batch_size, indices)

        monkeypatch.setattr(Cycle, "run", counting)
        data = ("--sa1b-dir", str(tmp_path / "sa1b"), "--sa1b-max-samples", "3", "--cycle-threshold", "0")
        arguments = short(model, tmp_path, *data)
        code, out, err = deixis(arguments)
        assert code == 0, err
        assert "captions: 3 images; 6 phrases" in out
        assert described == [0, 1, 2]
        assert deixis([*arguments, "--overwrite"])[0] == 0
        assert described == [0, 1, 2], "captions are kept for the next run"

    def test_captions_that_find_nothing_are_told(self, model, tmp_path, deixis) -> None:
        data = ("--sa1b-dir", str(mini.sa1b(tmp_path / "sa1b")), "--cycle-threshold", "1")
        code, _, err = deixis(short(model, tmp_path, *data))
        assert code == 2
        assert "lower --cycle-threshold" in err

    def test_a_dry_run_describes_nothing(self, model, tmp_path, deixis) -> None:
        code, _, err = deixis(short(model, tmp_path, "--sa1b-dir", str(mini.sa1b(tmp_path / "sa1b")), "--dry-run"))
        assert code == 2
        assert "deixis refer cycle" in err
        assert not (tmp_path / "segmenter").exists()
