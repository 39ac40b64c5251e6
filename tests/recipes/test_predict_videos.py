"""`deixis detect predict` on videos: drawn, as JSON lines and MOT files, tracked if asked, resumed where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import stand_in_trackers
from clip_miniatures import moving_bar, video

from deixis.data.inputs.stream import Stream, without_secrets
from deixis.data.pixels.frames import open_frames
from deixis.errors import DataError
from deixis.recipes.detect import predict, predict_videos


@pytest.fixture
def command(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From videos or folders to the words of the command."""
    monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)

    def words(*images: Path, more: tuple[str, ...] = ("--track",)) -> list[str]:
        return [
            *("detect", "predict", "--model", str(tiny_model), "--names", "star", "fish", "--threshold", "0"),
            *("--images", *map(str, images), "--max-detections", "4", "--batch-size", "2"),
            *("--device", "cpu", "--output", str(tmp_path / "out"), *more),
        ]

    return words


def frames_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_video_is_drawn_and_listed_and_resumed(command, deixis, tmp_path: Path, monkeypatch) -> None:
    still = np.repeat(moving_bar(1), 5, axis=0)  # a random detector sees the same in every frame
    gate = video(tmp_path / "in/gate.mp4", still, fps=12)
    yard = video(tmp_path / "in/yard.avi", moving_bar(3))
    (tmp_path / "in/cut.mp4").write_bytes(gate.read_bytes()[: gate.stat().st_size // 2])
    write = predict_videos.detection_video

    def stopped(folder, name, **options):
        if name == "yard":
            raise KeyboardInterrupt
        return write(folder, name, **options)

    monkeypatch.setattr(predict_videos, "detection_video", stopped)
    assert deixis(command(tmp_path / "in"))[0] == 130
    out = tmp_path / "out"
    assert not (out / "videos/yard.mp4").exists()
    asked: list[str] = []
    monkeypatch.setattr(
        predict_videos, "detection_video", lambda folder, name, **o: asked.append(name) or write(folder, name, **o)
    )
    code, said, err = deixis(command(tmp_path / "in"))
    assert (code, asked) == (0, ["yard"]), err
    assert "in 8 frames of 2 videos" in said
    assert "left out" in err
    assert "cut.mp4" in err
    lines = frames_of(out / "videos/gate.jsonl")
    assert [(line["frame"], line["time_s"]) for line in lines] == [(n, round(n / 12, 4)) for n in range(5)]
    assert {(line["width"], line["height"]) for line in lines} == {(48, 32)}
    assert all(one["track_id"] is None for one in lines[0]["objects"])
    assert [one["track_id"] for one in lines[1]["objects"]] == [one["track_id"] for one in lines[4]["objects"]]
    assert lines[4]["objects"][0]["track_id"] is not None
    tracked = sum(one["track_id"] is not None for line in lines for one in line["objects"])
    assert len((out / "mot/gate.txt").read_text().splitlines()) == tracked > 0
    with av.open(str(out / "videos/gate.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 12, 5)
    assert len(open_frames(out / "videos/yard.mp4")) == len(open_frames(yard)) == 3
    assert {path.name for path in out.iterdir()} == {"videos", "mot", ".deixis-output.json"}


def test_images_and_videos_without_tracking(command, deixis, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    video(folder / "gate.mp4", moving_bar(2))
    cv2.imwrite(str(folder / "a.png"), moving_bar(1)[0])
    code, said, err = deixis(command(folder, more=()))
    assert code == 0, err
    assert "objects in 1 pictures; " in said
    assert "in 2 frames of 1 videos" in said
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) == 1
    rows = (tmp_path / "out/mot/gate.txt").read_text().splitlines()
    assert len(rows) == 8
    assert {row.split(",")[1] for row in rows} == {"-1"}


def test_a_folder_of_frames_is_a_video_that_is_tracked(command, deixis, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(moving_bar(3)):
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    code, _, err = deixis(command(folder))
    assert code == 0, err
    assert len(frames_of(tmp_path / "out/videos/frames.jsonl")) == 3
    code, _, err = deixis(command(folder / "0.png"))
    assert code == 2
    assert "0.png is an image; give a video, or the folder of its frames" in err


def test_what_cannot_be_done_is_one_line(command, deixis, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "none.mp4").write_bytes(b"no video")
    code, _, err = deixis(command(tmp_path / "none.mp4"))
    assert code == 2
    assert "none of 1 videos can be read; the first: " in err
    monkeypatch.setitem(sys.modules, "trackers", None)
    code, _, err = deixis(command(tmp_path / "none.mp4"))
    assert code == 2
    assert "pip install --no-deps trackers" in err
    assert err.count("\n") == 1


class Camera(Stream):
    """An address that sends four frames and breaks off, or is interrupted there."""

    rate = Fraction(12)

    def __init__(self, address: str, end: type[BaseException]) -> None:
        self.shown, self.end = without_secrets(address), end

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from np.repeat(moving_bar(1), 4, axis=0)
        raise self.end("rtsp://10.0.0.7/gate: broke off after 4 frames (time-out)")


@pytest.mark.parametrize(
    ("end", "more", "count"), [(DataError, (), 4), (KeyboardInterrupt, (), 2), (DataError, ("--max-frames", "3"), 3)]
)
def test_what_a_stream_sent_is_kept(command, deixis, tmp_path: Path, monkeypatch, end, more, count) -> None:
    """After an interrupt without the batch that was being collected."""
    monkeypatch.setattr(predict, "Stream", partial(Camera, end=end))
    words = command(more=("--stream", "rtsp://user:secret@10.0.0.7/gate", "--track", *more))
    words.remove("--images")
    code, said, err = deixis(words)
    assert code == 0, err
    assert f"in {count} frames of rtsp://10.0.0.7/gate" in said
    assert ("broke off" in err) == (end is DataError and not more)
    out = tmp_path / "out"
    assert len(open_frames(out / "videos/gate.mp4")) == len(frames_of(out / "videos/gate.jsonl")) == count
    assert "secret" not in said + err


def test_images_or_a_stream(command, deixis, tmp_path: Path) -> None:
    words = command(tmp_path, more=("--stream", "camera:999"))
    assert deixis(words)[0] == 2
    words.remove("--images")
    words.remove(str(tmp_path))
    code, _, err = deixis(words)
    assert code == 2
    assert "error: camera:999: " in err
    assert err.count("\n") == 1
