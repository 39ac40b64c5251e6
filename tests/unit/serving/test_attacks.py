"""Attacks by what is sent: each is refused and costs little. Those by how it is sent are in `test_connections.py`."""

from __future__ import annotations

import base64
import hmac
import json
import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from stand_in_server import Server, content, image

from deixis.serving import images
from deixis.serving.door import Limits

SCRIPT = "<script>alert(1)</script>"


def png(width: int, height: int) -> bytes:
    """A small file that states a size and holds zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(min(height, 2000) * (1 + 3 * min(width, 2000))), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (1, 10**9), (8000, 8000)])
def test_a_bomb_is_refused_by_its_head(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode_image", None)  # nothing is decoded
    with (server := Server(max_pixels=10**6)).client:
        file = png(*size)
        assert len(file) < 100_000
        answer = server.client.post("/v1/detect", files={"image": ("a.png", file)}, data={"names": "a"})
    assert answer.status_code in (413, 422)
    assert "too large" in answer.json()["error"] or "at most 1000000" in answer.json()["error"]


def test_a_program_is_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has Ghostscript run PostScript."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("it was run"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(a) (w) file\n"
    with (server := Server()).client:
        asked = {"image": base64.b64encode(program).decode(), "names": ["a"]}
        answer = server.client.post("/v1/detect", json=asked)
    assert (answer.status_code, "PostScript is not read" in answer.json()["error"]) == (422, True)


def test_many_large_images_at_once_do_not_fill_the_memory() -> None:
    """Each is within the limit; those that would not fit together are told to come again."""
    with (server := Server(max_pixels=2400, wait_s=0)).client:
        serving = server.app.state.serving
        asked = {"image": image(60, 40), "names": ["a"]}
        with serving.pixels.hold() as take:
            take(8 * 2400)
            full = server.client.post("/v1/detect", json=asked)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert server.client.post("/v1/detect", json=asked).status_code == 200
        assert serving.pixels.taken == 0, "all is given back"


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"image":' * 50_000, b'{"image": "\xff"}', b"\x00", b'{"a": 1e999}']
)
def test_json_that_is_none(body: bytes) -> None:
    with (server := Server()).client:
        assert server.client.post("/v1/detect", content=body).status_code == 422
        assert server.client.post("/v1/jobs", content=body).status_code == 422


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame ", "bearer SESAME", "sesame", "Basic", "Basic !!!"),
        *("Basic " + base64.b64encode(text).decode() for text in (b"sesame", b"sesame:", b"a:sesam", b"a:b:sesame")),
        b"Bearer s\xe9same",
    ],
)
def test_wrong_tokens(header: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    plain = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append(a), plain(a, b))[1])
    with (server := Server(Limits(token="sesame"))).client:
        right = header == "Bearer sesame "
        assert server.client.get("/v1/models", headers={"Authorization": header}).status_code == (200 if right else 401)
    assert len(compared) == 1, "in constant time, whatever was sent"


def test_script_in_names_and_file_names_stays_text() -> None:
    with (server := Server()).client:
        files = {"image": (f"{SCRIPT}.png", content(), "text/html")}
        answer = server.client.post("/v1/detect", files=files, data={"names": SCRIPT})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["objects"][0]["label"] == SCRIPT
        drawn = server.client.post("/v1/detect", files=files, data={"names": SCRIPT, "answer": "picture"})
        assert Image.open(BytesIO(drawn.content)).format == "PNG"
        for asked in ({"image": image(), "model": SCRIPT}, {"image": SCRIPT}, {SCRIPT: 1}):
            wrong = server.client.post("/v1/detect", json=asked)
            assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/json")
        for path in (f"/{SCRIPT}", f"/v1/jobs/{SCRIPT}", f"/v1/{SCRIPT}"):
            wrong = server.client.get(path)
            assert wrong.headers["content-type"].startswith("application/json")
            json.loads(wrong.text)
        assert "script" not in server.client.get("/metrics").text
        breaks = server.client.post("/v1/detect", json={"image": image(), "names": ["a\r\nX-Evil: 1"]})
        assert "x-evil" not in breaks.headers
