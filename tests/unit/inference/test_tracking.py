"""Objects keep their ids through a video, and frames are read one batch at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import stand_in_trackers
import torch

from deixis.data.pixels.frames import open_frames
from deixis.errors import OptionError, PromptError
from deixis.inference.detect.detector import Detector
from deixis.inference.detect.tracking import byte_tracker, tracked
from deixis.inference.outputs.videos import detection_video
from deixis.models.grounding_dino import init_bundle
from deixis.models.grounding_dino.small import small_config, small_tokenizer
from deixis.results.detections import Detections
from deixis.results.draw import draw_detections

NAMES = ("car", "bus")


@pytest.fixture(params=["stand-in", "trackers"])
def trackers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library, or what stands for it."""
    if request.param == "trackers":
        pytest.importorskip("trackers", reason="trackers is not installed: it would need another OpenCV")
    else:
        monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)


def frame(number: int, rows: list[tuple[float, float, float, int]]) -> Detections:
    """Boxes of 40 x 30 at (left, top), with scores and classes."""
    boxes = np.array([[left, top, left + 40, top + 30] for left, top, _, _ in rows], np.float64).reshape(-1, 4)
    scores = np.array([score for _, _, score, _ in rows], np.float64)
    return Detections(
        boxes,
        scores,
        np.array([c for *_, c in rows], np.int64),
        NAMES,
        image_id=number,
        size_hw=(240, 640),
    )


def crossing(frames: int = 20) -> list[Detections]:
    """A car to the right, a car to the left lower down, and a bus that covers the first car in every frame."""
    return [
        frame(
            n,
            [
                *([(10 + 8 * n, 20, 0.9, 0)] if n not in (6, 7) else []),  # hidden for two frames
                (10 + 8 * n, 21, 0.8, 1),
                (500 - 8 * n, 120, 0.35 if n != 12 else 0.2, 0),  # once below the threshold
                (300, 200, 0.2, 1),  # never above it
            ],
        )
        for n in range(frames)
    ]


@pytest.mark.usefixtures("trackers")
def test_ids_stay_and_classes_stay_apart() -> None:
    found = list(tracked(crossing(), 0.3, byte_tracker(30)))
    assert [one.image_id for one in found] == list(range(20))
    assert (found[0].track_ids == -1).all()  # none is confirmed by one frame
    paths: dict[int, list[tuple[int, str, float]]] = {}
    for number, one in enumerate(found[1:], start=1):
        assert one.track_ids is not None
        assert (one.track_ids > 0).all()
        for row in one:
            assert row.track_id is not None
            paths.setdefault(row.track_id, []).append((number, row.label, row.box_xyxy_px[0]))
    assert sorted(paths) == [1, 2, 3]
    by_start = {path[0][1:]: [step for step, _, _ in path] for path in paths.values()}
    shown = list(range(1, 20))
    assert by_start[("car", 18.0)] == [n for n in shown if n not in (6, 7)]
    assert by_start[("bus", 18.0)] == by_start[("car", 492.0)] == shown
    assert all(len({label for _, label, _ in path}) == 1 for path in paths.values())


@pytest.mark.usefixtures("trackers")
def test_thresholds_differ_by_class() -> None:
    found = list(tracked(crossing(5), [0.95, 0.15], byte_tracker(30)))
    assert [sorted(one.labels) for one in found] == [["bus", "bus"]] * 5
    empty = [frame(n, []) for n in range(3)]
    assert [len(one) for one in tracked(empty, 0.3, byte_tracker(25))] == [0, 0, 0]


def test_tracks_are_selected_and_converted() -> None:
    whole = Detections(
        np.array([[0.0, 0, 9, 9], [5, 5, 20, 20]]),
        np.array([0.9, 0.5]),
        np.array([0, 1]),
        NAMES,
        size_hw=(30, 40),
        track_ids=np.array([7, -1]),
    )
    assert [one.track_id for one in whole] == [7, None]
    assert whole.filter(names="car")[0].track_id == 7
    assert [row["track_id"] for row in whole.rows()] == [7, None]
    assert list(whole.to_pandas().columns)[-1] == "track_id"
    assert Detections.from_supervision(whole.to_supervision()) == whole
    assert whole != Detections.from_supervision(whole.to_supervision()[:1])
    picture = np.zeros((480, 640, 3), np.uint8)
    untracked = Detections(whole.boxes_xyxy_px, whole.scores, whole.class_ids, NAMES, size_hw=(30, 40))
    assert not np.array_equal(draw_detections(picture, whole), draw_detections(picture, untracked))
    assert "track_id" not in untracked.rows()[0]


def test_frames_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)
    read = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield np.full((32, 48, 3), read % 256, np.uint8)

    torch.manual_seed(3)
    tokenizer = small_tokenizer(["car"])
    detector = Detector(init_bundle(small_config(len(tokenizer)), tokenizer, image_size=(32, 48)))
    found = detector.track(camera(), ["car"], 0.0, batch_size=2, max_detections=3)
    for number in range(1, 7):
        one = next(found)
        assert (one.image_id, len(one)) == (number - 1, 3)
        assert read <= number + 3  # this batch and the next
    assert (one.track_ids > 0).any()
    with pytest.raises(PromptError, match="must be a list"):
        detector.track(camera(), "car")
    with pytest.raises(OptionError, match=r"between 0 and 1, got 3"):
        detector.track(camera(), ["car"], 3)


def test_without_the_library_the_command_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", ModuleType("trackers"))
    with pytest.raises(OptionError, match=r"pip install --no-deps trackers$") as raised:
        byte_tracker(30)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("trackers")
def test_what_is_written_of_a_video(tmp_path: Path) -> None:
    frames = crossing(4)
    pixels = np.zeros((240, 640, 3), np.uint8)
    with detection_video(tmp_path, "gate", rate=Fraction(25), names=NAMES, draw=draw_detections) as add:
        for one in tracked(frames, 0.3, byte_tracker(25)):
            add(pixels, one)
    rows = [line.split(",") for line in (tmp_path / "mot/gate.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["2"] * 3 + ["3"] * 3 + ["4"] * 3
    assert rows[0][2:] == ["18.00", "20.00", "40.00", "30.00", "0.90000", "1", "1"]
    assert {row[1] for row in rows} == {"1", "2", "3"}
    assert (tmp_path / "mot/labels.txt").read_text() == "car\nbus\n"
    drawn = open_frames(tmp_path / "videos/gate.mp4")
    assert (len(drawn), drawn.size_hw, drawn.rate) == (4, (240, 640), 25)  # type: ignore[attr-defined]
    assert np.abs(drawn[3].astype(int) - draw_detections(pixels, frames[3])).mean() < 20
