"""A corrupt MP4, a missing frame, a masklet of another size: one clear line and exit code 2, by every command."""

from __future__ import annotations

from pathlib import Path

import clip_miniatures as mini
import pytest
from small_trackers import tiny_tracker

from deixis.models.sa2va import save_sa2va


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tracker"
    save_sa2va(tiny_tracker(seed=1), folder)
    return folder


def corrupt(folder: Path) -> Path:
    file = mini.ref_sav(folder)
    video = folder / "sav_train/sav_000/sav_000007.mp4"
    video.write_bytes(video.read_bytes()[:1000])
    return file


def missing(folder: Path) -> Path:
    mini.mevis(folder)
    (folder / "JPEGImages/2da2/00002.jpg").unlink()
    return folder


def other_size(folder: Path) -> Path:
    return mini.mevis(folder, masks={**mini.MEVIS_MASKS, "12": [None, mini.rle(mini.box(0, (9, 9))), None, None]})


FAULTS = {
    "corrupt": (corrupt, "sav_000007.mp4: cannot be read as a video"),
    "missing": (missing, "00002.jpg: frame 2 of 4 is missing"),
    "other_size": (other_size, "annotation 12 of video 2da2, frame 1: segmentation has size [9, 9]"),
}
COMMANDS = {
    "train": ("train", "--gpus", "0", "--num-workers", "0", "--no-baseline", "--lora-r", "2", "--max-tiles", "1",
              "--val-data", "scenes:split=refer_seen,count=1,seed=2", "--data"),
    "track": ("track", "--device", "cpu", "--prompt-frames", "1", "--data"),
    "cycle": ("cycle", "--device", "cpu", "--max-new-tokens", "2", "--masks"),
}  # fmt: skip


MEETINGS = [(fault, command) for fault in FAULTS for command in COMMANDS]
MEETINGS.remove(("missing", "cycle"))  # it looks at another frame of the clip


@pytest.mark.parametrize(("fault", "command"), MEETINGS)
def test_one_line_tells_it(model, tmp_path, deixis, fault, command) -> None:
    make, told = FAULTS[fault]
    place = make(tmp_path / "data")
    words = ["refer", *COMMANDS[command], str(place), "--model", str(model), "--output", str(tmp_path / "out")]
    code, _, err = deixis(words)
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if not line.startswith("deixis: warning:")]
    assert line.startswith("deixis: error: ")
    assert told in line
