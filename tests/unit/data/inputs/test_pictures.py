"""One function prepares whatever a caller has as pictures; what is none is one clear line."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.data.inputs import download as downloads
from deixis.data.inputs.pictures import as_pixels, each_picture
from deixis.data.pixels.frames import video_writer
from deixis.errors import DataError

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [9, 99, 199]]], np.uint8)
WIDE = np.tile(COLOURS, (5, 4, 1))  # 10x12: sides that cannot be confused with each other or with channels


def loaded(images: object) -> list[np.ndarray]:
    return [picture.load() for picture in each_picture(images)]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_every_kind_of_input_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(WIDE))
    chw = torch.from_numpy(WIDE).permute(2, 0, 1)
    kinds = {
        "path": path,
        "text": str(path),
        "folder": tmp_path,
        "pattern": str(tmp_path / "*.png"),
        "PIL": Image.fromarray(WIDE),
        "array": WIDE,
        "floats to 1": WIDE / 255,
        "floats to 255": WIDE.astype(np.float32),
        "integers": WIDE.astype(np.int64),
        "16 bits": WIDE.astype(np.uint16) * 257,
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
        "tensor": chw,
        "tensor of floats": chw / 255,
        "half": (chw / 255).half(),
        "channels last": torch.from_numpy(WIDE),
    }
    for kind, value in kinds.items():
        for images in (value, [value], (one for one in [value])):
            if isinstance(images, list) and hasattr(value, "seek"):
                value.seek(0)
            if hasattr(value, "seek"):
                value.seek(0)
            found = loaded(images)
            assert len(found) == 1, kind
            assert found[0].dtype == np.uint8, kind
            assert np.array_equal(found[0], WIDE), kind


def test_batches_and_mixed_lists_are_several_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(WIDE))
    assert len(loaded(np.stack([WIDE, WIDE]))) == 2
    assert len(loaded(torch.zeros(3, 3, 4, 5))) == 3
    mixed = list(each_picture([tmp_path, WIDE, png(WIDE)]))
    assert [picture.name for picture in mixed] == [str(tmp_path / "a.png"), "image 1", "image 2"]
    assert [picture.path for picture in mixed] == [tmp_path / "a.png", None, None]
    assert loaded([]) == []


def test_grey_and_transparency() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for same in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        assert np.array_equal(as_pixels(same), np.repeat(grey[..., None], 3, 2))
    assert as_pixels(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    clear = np.zeros((1, 1, 4), np.uint8)
    assert as_pixels(clear).tolist() == [[[255] * 3]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (7, "images is a int; expected a path"),
        (None, "images is a NoneType"),
        ({"a.jpg": 1}, "images is a dict"),
        ([WIDE, None], "image 1 is a NoneType; expected"),
        ([[WIDE]], "image 0 is a list; expected"),
        ([np.zeros((2, 3, 4, 3), np.uint8)], r"image 0 is a ndarray of shape \(2, 3, 4, 3\)"),
        (np.zeros(5), r"an image of shape \(5,\) is none"),
        (WIDE.transpose(2, 0, 1), r"write image.transpose\(1, 2, 0\)"),
        (np.zeros((4, 5, 2)), r"got \(4, 5, 2\)"),
        (np.zeros((0, 5, 3)), r"got \(0, 5, 3\)"),
        (np.full((4, 4, 3), np.nan), "finite"),
        ((WIDE / 255 - 0.5) / 0.2, "undo the normalisation"),
        (np.full((4, 4, 3), 256), "values of int64 must lie in"),
        (np.full((4, 4, 3), "a"), "must hold numbers"),
        (b"no image", "cannot decode image"),
        (b"", "cannot decode image"),
        (io.StringIO("text"), "mode 'rb'"),
        ("absent.jpg", "absent.jpg: no such file or folder"),
        ("a\0.jpg", "no such file or folder"),
        ("s3://bucket/a.jpg", "s3:// is not read"),
        ("file:///etc/passwd", "file:// is not read"),
    ],
)
def test_what_is_no_picture_is_one_clear_line(images: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loaded(images)
    assert "\n" not in str(caught.value)


def test_a_video_is_its_frames_each_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(12)]
    with video_writer(tmp_path / "clip.mp4", 10) as write:
        for frame in frames:
            write(frame)
    pictures = list(each_picture(tmp_path / "clip.mp4"))
    assert [picture.name for picture in pictures][:2] == [f"{tmp_path / 'clip.mp4'}#{i}" for i in range(2)]
    film = pictures[0].source.film
    asked: list[range] = []
    read = type(film.frames).read
    monkeypatch.setattr(type(film.frames), "read", lambda self, numbers: asked.append(numbers) or read(self, numbers))
    brightness = [float(pictures[i].load().mean()) for i in (1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)]
    assert np.allclose(brightness, [20 * i for i in (1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)], atol=4)
    assert len(asked) == 2  # one more for the frame asked for out of order


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(40):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.02)
            return
        self.wfile.write(b"x" * 5000 if self.path == "/large" else png(WIDE))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    web = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


def test_urls_are_bounded(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert np.array_equal(loaded(f"{server}/a.png?size=1")[0], WIDE)
    with pytest.raises(DataError, match="reports 404"):
        loaded(f"{server}/absent")
    with pytest.raises(DataError, match="Redirection to url"):
        loaded(f"{server}/away")
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="sends more than"):
        loaded(f"{server}/large")
    monkeypatch.setattr(downloads, "MAX_SECONDS", 0.1)
    with pytest.raises(DataError, match="takes longer than"):
        loaded(f"{server}/slow")
    with pytest.raises(DataError, match="cannot be downloaded"):
        loaded("http://127.0.0.1:9/a.png")
