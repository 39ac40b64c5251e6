"""Videos from an address: a local server stands in for the web; errors are one line without a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from clip_miniatures import moving_bar, video

from deixis.data.inputs import stream as streams
from deixis.data.inputs.pictures import each_picture
from deixis.data.inputs.stream import Stream
from deixis.data.pixels.frames import open_frames
from deixis.errors import DataError


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("web")
    gate = video(root / "gate.mp4", moving_bar(5), fps=12)
    (root / "text.mp4").write_text("nothing")
    (root / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{gate}\n#EXT-X-ENDLIST\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_frames_are_those_of_the_file(web: str, tmp_path: Path) -> None:
    stream = Stream(f"{web}/gate.mp4?key=1")
    assert (stream.rate, stream.name) == (12, "gate")
    frames = list(stream)
    assert len(frames) == 5
    for ours, theirs in zip(frames, open_frames(video(tmp_path / "gate.mp4", moving_bar(5), fps=12)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_address_is_an_input_among_others(web: str) -> None:
    pictures = list(each_picture([f"{web}/gate.mp4", np.zeros((4, 4), np.uint8)]))
    assert len(pictures) == 6
    assert pictures[4].name == f"{web}/gate.mp4#4"
    assert pictures[4].load().shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("{web}/none.mp4", "404"),
        ("{web}/text.mp4", "Invalid data"),
        ("{web}/list.m3u8", "Invalid data"),  # a playlist from the web does not lead to files of this machine
        ("rtsp://user:secret@127.0.0.1:1/gate", "refused"),
        ("http://user:secret@127.0.0.1:1/gate.mp4", "refused"),
        ("camera:999", "camera:999: "),
        ("file:///etc/passwd", "no address of a video"),
        ("gate.mp4", "no address of a video"),
    ],
)
def test_a_bad_address_is_one_line(web: str, address: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as raised:
        list(Stream(address.format(web=web)))
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_address_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TIMEOUT_S", 0.2)
    with pytest.raises(DataError, match="nothing came for"):
        Stream("udp://127.0.0.1:49999")
