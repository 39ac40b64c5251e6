"""Short films: followed, drawn, bounded in frames, seconds and pixels before anything is decoded, given up in time."""

from __future__ import annotations

import base64
from pathlib import Path
from threading import Event

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from small_trackers import tiny_tracker
from stand_in_server import Server, film

from deixis.data.pixels.video_file import VideoFrames
from deixis.geometry.rle import plain_rle
from deixis.inference.refer.segmenter import Segmenter
from deixis.inference.refer.tracker import Tracker
from deixis.serving.films import FilmLimits, followed, in_turn
from deixis.serving.requests import AskedTrack


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("films") / "film.mp4"
    film(place, 6, width=48, height=32)
    return place


def sent(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_names_are_followed_and_drawn(path: Path) -> None:
    with (server := Server()).client as client:
        answer = client.post("/v1/track", json={"video": sent(path), "names": ["cat", "cat"], "threshold": 0.7})
        found = answer.json()
        assert found["video"] == {"width": 48, "height": 32, "rate": 24.0}
        assert [row["frame"] for row in found["frames"]] == list(range(6))
        assert found["frames"][5]["objects"] == [
            {"label": "cat", "score": 0.7, "box_xyxy_px": [0, 0, 24, 32], "track_id": 1}
        ]
        drawn = client.post("/v1/track", files={"video": ("a.mp4", path.read_bytes())}, data={"answer": "film"})
        assert drawn.headers["content-type"] == "video/mp4"
        (path.parent / "drawn.mp4").write_bytes(drawn.content)
    assert len(VideoFrames(path.parent / "drawn.mp4")) == 6
    assert server.detector.sizes[:2] == [1, 1], "a frame at a time, in turn with others"


def test_phrases_are_followed_as_in_python(path: Path) -> None:
    with (server := Server()).client as client:
        bundle = tiny_tracker()
        server.app.state.serving.models.segmenters["m"] = Segmenter(bundle)
        asked = {"video": sent(path), "phrases": ["red circle"], "model": "m"}
        frames = client.post("/v1/track", json=asked).json()["frames"]
    direct = list(Tracker(bundle).track(path, ["red circle"]))
    assert len(frames) == len(direct) == 6
    for row, (record,) in zip(frames, direct, strict=True):
        (found,) = row["objects"]
        assert (found["phrase"], found["score"]) == ("red circle", round(record.score, 5))
        assert found["mask"] in (None, plain_rle(record.mask_rle))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (FilmLimits(max_frames=5), "video: has 6 frames, at most 5"),
        (FilmLimits(max_pixels=1000), "video: has 48x32 pixels, at most 1000"),
    ],
)
def test_films_beyond_the_limits(path: Path, limits: FilmLimits, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoFrames, "read", None)  # nothing may be decoded
    with (server := Server(films=limits)).client as client:
        answer = client.post("/v1/track", json={"video": sent(path), "names": ["cat"]})
    assert (answer.status_code, answer.json()["error"][: len(said)]) == (413, said)
    assert server.detector.sizes == [1], "the warm-up alone"


@pytest.mark.parametrize("content", [b"", b"no film", b"\x00\x00\x00\x18ftypmp42" + bytes(200)])
def test_what_is_no_film(content: bytes) -> None:
    with Server().client as client:
        answer = client.post("/v1/track", json={"video": base64.b64encode(content).decode(), "names": ["cat"]})
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_a_film_is_given_up_in_time_and_its_frames_are_not_gone_through(path: Path) -> None:
    with (server := Server(timeout_s=0.2)).client as client:
        server.detector.gate.clear()
        answer = client.post("/v1/track", json={"video": sent(path), "names": ["cat"]})
        server.detector.gate.set()
    assert answer.status_code == 504
    assert len(server.detector.sizes) < 6


def test_requests_are_answered_between_the_frames_of_a_film(path: Path) -> None:
    """The queue is served in order, so a film does not hold up what comes after its first frame."""
    order: list[str] = []
    with (server := Server(wait_s=0)).client:
        serving = server.app.state.serving
        plain = server.detector.predict
        server.detector.predict = lambda *a, **k: (order.append("frame"), plain(*a, **k))[1]  # type: ignore[method-assign]
        asked = AskedTrack(video="-", names=["cat"])
        steps = in_turn(serving.batches, followed(serving.models, asked, VideoFrames(path)), Event())
        next(steps)
        other = serving.batches.call(lambda: order.append("other"))
        rest = list(steps)
        other.result(10)
    assert len(rest) == 5
    assert order.index("other") == 1
    assert np.array_equal(order[2:], ["frame"] * 5)
