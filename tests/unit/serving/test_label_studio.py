"""Label Studio's protocol of ML backends, asked as Label Studio asks, with a miniature of it that serves the files."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from small_segmenters import tiny_segmenter
from stand_in_server import Server, content

from deixis.data.formats.label_studio.regions import objects_of
from deixis.geometry.rle import bitmap_rle
from deixis.inference.refer.prompted_masks import PromptedMask, PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.serving.app import Mount
from deixis.serving.door import Limits
from deixis.serving.labelling.label_config import read_label_config
from deixis.serving.labelling.label_studio import add_label_studio
from deixis.serving.labelling.task_images import LabelStudio

BOXES = """<View><!-- birds --><Image name="img" value="$photo" zoom="true"/>
<RectangleLabels name="box" toName="img" model_score_threshold="0.8">
<Label value="Cat" predicted_values="cat, kitten"/><Label value="Dog"/></RectangleLabels></View>"""
CLICKS = """<View><Image name="img" value="$photo"/>
<{tag} name="drawn" toName="img"><Label value="Cat"/><Label value="Dog"/></{tag}>
<KeyPointLabels name="points" toName="img" smart="true" smartOnly="true"><Label value="Dog"/></KeyPointLabels>
<RectangleLabels name="rect" toName="img" smart="true" smartOnly="true"><Label value="Dog"/></RectangleLabels></View>"""


class _Miniature(BaseHTTPRequestHandler):
    """Label Studio's files, behind its two kinds of tokens."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") in ("Token legacy", "Bearer for-five-minutes")
        self._send(200 if allowed else 401, content(80, 40) if allowed else b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = self.path == "/api/token/refresh/" and body == {"refresh": "a.personal.token"}
        self._send(200 if right else 401, b'{"access": "for-five-minutes"}' if right else b"{}")

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def studio() -> Iterator[str]:
    web = HTTPServer(("127.0.0.1", 0), _Miniature)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


def backend(url: str = "", key: str = "") -> Mount:
    return lambda app: add_label_studio(app, LabelStudio(url, key))


def request(config: str, *images: str, context: Any = None) -> dict[str, Any]:
    """As Label Studio's connector makes it."""
    tasks = [{"id": n, "data": {"photo": image}, "annotations": [], "project": 7} for n, image in enumerate(images, 1)]
    params = {"login": None, "password": None, "context": context}
    return {"tasks": tasks, "model_version": None, "project": "7.1700000000", "label_config": config, "params": params}


def data_url(width: int = 80, height: int = 40) -> str:
    return "data:image/png;base64," + base64.b64encode(content(width, height)).decode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server(mounts=[backend()])
    with one.client:
        one.app.state.serving.models.segmenters["masks"] = Segmenter(tiny_segmenter())
        yield one


def test_a_project_is_connected(server: Server) -> None:
    assert server.client.get("/label-studio/health").json()["status"] == "UP"
    assert server.client.get("/label-studio/").json()["status"] == "UP"
    asked = {"project": "7.17", "schema": BOXES, "hostname": "http://evil.example", "access_token": "x"}
    assert server.client.post("/label-studio/setup", json=asked).json() == {"model_version": "cats+masks"}
    assert server.client.get("/label-studio/versions").json() == {"versions": ["cats+masks"]}
    for path in ("webhook", "train"):
        assert server.client.post(f"/label-studio/{path}", json={"action": "ANNOTATION_CREATED"}).status_code == 200


def test_tasks_are_predicted_as_rectangles_in_percent(server: Server) -> None:
    asked = request(BOXES, data_url(80, 40), data_url(100, 10))
    answer = server.client.post("/label-studio/predict", json=asked).json()
    assert answer["model_version"] == "cats+masks"
    first, second = answer["results"]
    assert (first["score"], first["model_version"], len(second["result"])) == (0.8, "cats+masks", 3)
    region = first["result"][0]
    assert {key: region[key] for key in region if key != "id"} == {
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "img",
        "score": 0.8,
        "image_rotation": 0,
        "original_width": 80,
        "original_height": 40,
        "value": {"x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0, "rectanglelabels": ["Cat"]},
    }
    assert [one["value"]["rectanglelabels"] for one in first["result"]] == [["Cat"], ["Cat"], ["Dog"]], "by its words"


def clicks(*regions: dict[str, Any]) -> dict[str, Any]:
    head = {"original_width": 80, "original_height": 40, "image_rotation": 0, "to_name": "img"}
    return {"result": [{**head, **region} for region in regions]}


POINTS = (
    {"type": "keypointlabels", "is_positive": 1, "value": {"x": 50, "y": 25, "width": 0.3, "keypointlabels": ["Dog"]}},
    {"type": "keypointlabels", "is_positive": 0, "value": {"x": 75, "y": 75, "width": 0.3, "keypointlabels": ["Dog"]}},
)
BOX = {"type": "rectanglelabels", "value": {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["Dog"]}}


@pytest.mark.parametrize("tag", ["BrushLabels", "PolygonLabels", "RectangleLabels"])
def test_clicks_become_a_mask_of_the_projects_kind(server: Server, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[10:30, 20:60] = 1
    seen: list[Any] = []

    def at_clicks(self: Any, pixels: Any, points: Any, inside: Any, box: Any = None) -> PromptedMask:
        seen.append((points.tolist(), inside.tolist(), None if box is None else box.tolist()))
        return PromptedMask(bitmap_rle(mask), "clicks", 0.9)

    monkeypatch.setattr(PromptedMasks, "at_clicks", at_clicks)
    config = CLICKS.format(tag=tag)
    asked = request(config, data_url(), context=clicks(*POINTS))
    (found,) = server.client.post("/label-studio/predict", json=asked).json()["results"]
    (region,) = found["result"]
    kind = tag.lower()
    assert (region["type"], region["from_name"], region["value"][kind], region["score"]) == (
        kind,
        "drawn",
        ["Dog"],
        0.9,
    )
    both = request(config, data_url(), context=clicks(*POINTS, BOX))
    assert server.client.post("/label-studio/predict", json=both).status_code == 200
    pixels = [[40, 10], [60, 30]]
    assert seen == [(pixels, [True, False], None), (pixels, [True, False], [20, 10, 60, 30])]
    (back,) = objects_of(region["value"], (40, 80), True, None)
    if tag == "RectangleLabels":
        assert back.box_xyxy_px == (20, 10, 60, 30)
    else:
        assert coco_mask.iou([back.mask_rle], [bitmap_rle(mask)], [0])[0, 0] > 0.9, "as Label Studio's export is read"


def test_a_box_alone_is_a_prompt_too(server: Server) -> None:
    asked = request(CLICKS.format(tag="BrushLabels"), data_url(), context=clicks(BOX))
    answer = server.client.post("/label-studio/predict", json=asked)
    assert answer.status_code == 200, answer.text
    assert [one["value"]["brushlabels"] for one in answer.json()["results"][0]["result"]] in ([["Dog"]], [])


@pytest.mark.parametrize("key", ["legacy", "a.personal.token"])
def test_files_of_label_studio_are_fetched_with_its_key(studio: str, key: str) -> None:
    with (server := Server(mounts=[backend(studio, key)])).client:
        asked = request(BOXES, "/data/upload/7/a.png", f"{studio}/data/local-files/?d=a.png")
        answer = server.client.post("/label-studio/predict", json=asked)
        assert [one["result"][0]["original_width"] for one in answer.json()["results"]] == [80, 80]
    with (server := Server(mounts=[backend(studio, "wrong")])).client:
        answer = server.client.post("/label-studio/predict", json=request(BOXES, "/data/upload/7/a.png"))
    assert (answer.status_code, "reports 401" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("/data/upload/7/a.png", "--label-studio"),
        ("//127.0.0.1/a.png", "not read"),
        ("http://169.254.169.254/latest", "not fetched"),
        ("s3://bucket/a.png", "not read"),
        ("file:///etc/passwd", "not read"),
        ("data:image/png;base64,!", "no base64"),
        ("data:image/png;base64,aGVsbG8=", "cannot decode"),
    ],
)
def test_images_of_other_places(server: Server, image: str, said: str) -> None:
    answer = server.client.post("/label-studio/predict", json=request(BOXES, image))
    assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text


def test_a_key_goes_to_its_own_label_studio_alone(studio: str) -> None:
    with (server := Server(mounts=[backend(studio, "legacy")], url_hosts=(studio.removeprefix("http://"),))).client:
        for value in (f"{studio}.evil.example/a.png", f"{studio}@evil.example/a.png"):
            answer = server.client.post("/label-studio/predict", json=request(BOXES, value))
            assert "not fetched" in answer.json()["error"] or "no URL" in answer.json()["error"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("<View", "is no labelling configuration"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View><Image name="a" value="$b"/></View>', "has declarations"),
        ("<View><Text name='a' value='$b'/></View>", "has no <Image"),
        (BOXES.replace("0.8", "much"), "is no number"),
    ],
)
def test_configurations_that_are_none(server: Server, config: str, said: str) -> None:
    answer = server.client.post("/label-studio/predict", json=request(config, data_url()))
    assert (answer.status_code, said in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize("result", [[{}], [{"type": "keypointlabels", "value": {"x": "a", "y": 1}}], [7], [None]])
def test_clicks_that_are_none(server: Server, result: Any) -> None:
    asked = request(CLICKS.format(tag="BrushLabels"), data_url(), context={"result": result})
    assert server.client.post("/label-studio/predict", json=asked).status_code == 422


def test_label_studio_sends_the_token_as_a_password() -> None:
    login = {"Authorization": "Basic " + base64.b64encode(b"label-studio:sesame").decode()}
    with (server := Server(Limits(token="sesame"), mounts=[backend()])).client:
        assert server.client.get("/label-studio/health").status_code == 401
        assert server.client.get("/label-studio/health", headers=login).status_code == 200


def test_results_have_a_labels_alias_and_models_are_asked_for_its_words() -> None:
    labels = (
        '<Label value="Cat" alias="c"/><Label value="Dog" alias="d" predicted_values="hound,puppy"/><Label value=""/>'
    )
    text = f'<View><Image name="i" value="$a"/><RectangleLabels name="b" toName="i">{labels}</RectangleLabels></View>'
    assert read_label_config(text).controls[0].labels == {"Cat": "c", "hound": "d", "puppy": "d"}


def test_the_control_with_the_label_is_drawn_with() -> None:
    config = read_label_config(
        '<View><Image name="i" value="$photo"/><BrushLabels name="a" toName="i"><Label value="Cat"/></BrushLabels>'
        '<PolygonLabels name="b" toName="i"><Label value="Dog"/></PolygonLabels>'
        '<BrushLabels name="c" toName="other"><Label value="Dog"/></BrushLabels></View>'
    )
    names = {label: config.drawn(label=label) for label in ("Cat", "Dog", "Cow")}
    assert {label: one and one.name for label, one in names.items()} == {"Cat": "a", "Dog": "b", "Cow": "b"}
