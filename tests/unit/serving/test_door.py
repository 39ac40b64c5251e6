"""What a request passes before anything looks at it: who asks, from which page, under which name."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from fastapi import FastAPI
from stand_in_server import Server, image
from starlette.websockets import WebSocketDisconnect

from deixis.serving.door import Limits


@pytest.fixture
def server() -> Iterator[Server]:
    with (one := Server()).client:
        yield one


def test_pages_are_mounted_behind_the_door_and_take_no_path_from_the_routes() -> None:
    def page(app: FastAPI) -> None:
        models = app.state.serving.models
        app.add_api_route("/{path:path}", lambda path: {"page": path, "models": list(models.detectors)})

    with (server := Server(Limits(token="sesame"), mounts=[page])).client:
        assert server.client.get("/").status_code == 401
        login = {"Authorization": "Basic " + base64.b64encode(b"anyone:sesame").decode()}
        assert server.client.get("/a", headers=login).json() == {"page": "a", "models": ["cats", "dogs"]}
        assert "detectors" in server.client.get("/v1/models", headers=login).json()
        asked = server.client.get("/", headers={"Accept": "text/html"})
        assert asked.headers["www-authenticate"] == "Bearer, Basic", "a browser asks for the token"
        with pytest.raises(WebSocketDisconnect), server.client.websocket_connect("/ws"):
            pass


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9", "http://localhost.evil.example"]
)
def test_pages_of_other_sites_may_not_ask(server: Server, origin: str) -> None:
    asked = {"image": image(), "names": ["a"]}
    assert server.client.post("/v1/detect", json=asked, headers={"Origin": origin}).status_code == 403
    assert server.client.post("/v1/detect", json=asked, headers={"Origin": "http://localhost"}).status_code == 200
