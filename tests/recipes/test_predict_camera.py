"""A camera that sends JPEG over HTTP, through the command and Python: no length, a break in the middle, flat memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import stand_in_trackers
from clip_miniatures import moving_bar
from network_camera import IS_SILENT, LEAVES, RESETS, network_camera

import deixis as api
from deixis.data.inputs import stream as streams
from deixis.data.inputs.stream import Stream
from deixis.data.pixels.frames import open_frames
from deixis.errors import DataError, DeixisError

COUNT = 6


def frames() -> Iterator[np.ndarray]:
    return iter(moving_bar(COUNT))


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)
    return [
        *("detect", "predict", "--model", str(tiny_model), "--names", "star", "--threshold", "0", "--track"),
        *("--max-detections", "2", "--batch-size", "1", "--device", "cpu", "--output", str(tmp_path / "out")),
    ]


@pytest.mark.parametrize(
    ("then", "why"), [(LEAVES, "broke off after 6 frames"), (RESETS, "broke off"), (IS_SILENT, "nothing came for")]
)
def test_what_a_camera_sent_is_written(
    words: list[str], deixis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, why: str
) -> None:
    monkeypatch.setattr(streams, "TIMEOUT_S", 5.0)
    with network_camera(frames, then) as address:
        code, said, err = deixis([*words, "--stream", address])
    assert code == 0, err
    assert [why in line for line in err.splitlines() if "warning" in line] == [True], err
    lines = (tmp_path / "out/videos/video.jsonl").read_text().splitlines()
    assert f"in {len(lines)} frames of {address}" in said
    # a reset takes with it what was still on its way
    assert 1 <= len(lines) <= COUNT if then == RESETS else len(lines) == COUNT
    assert len(open_frames(tmp_path / "out/videos/video.mp4")) == len(lines)
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))


def test_a_camera_that_never_ends(words: list[str], deixis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar counts without a total, and memory stays as it is: 120 frames would be 110 MB."""
    used: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        for number, frame in enumerate(cycle(moving_bar(2, (480, 640)))):
            if number in (20, 140):
                used.append(psutil.Process().memory_info().rss)
            yield frame

    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for the bar
    with network_camera(endless) as address:
        code, said, err = deixis([*words, "--stream", address, "--max-frames", "150"])
        assert code == 0, err
        assert "in 150 frames" in said
        assert "/?" in err
        assert used[1] - used[0] < 50 * 2**20
        detector = api.load_detector(words[3], "cpu")
        found = list(islice(detector.track(Stream(address), ["star"], 0.0, batch_size=1), 4))
        assert [one.image_id for one in found] == [0, 1, 2, 3]
        assert found[3].size_hw == (480, 640)
        with pytest.raises(DeixisError, match="sends a stream of frames") as raised:
            detector.predict(address, ["star"])
        assert "\n" not in str(raised.value)


def test_a_camera_that_is_not_there(words: list[str], deixis, tmp_path: Path) -> None:
    with network_camera(frames) as address:
        pass
    code, _, err = deixis([*words, "--stream", address])
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{address}: cannot be opened (Connection refused)" in err
    assert not (tmp_path / "out/videos").exists()
    with pytest.raises(DataError, match="refused"):
        list(Stream(address))
