"""The server in memory, on models that stand in for real ones: answers, limits, and what is refused."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from stand_in_server import Server, content, image

from deixis.serving.door import Limits


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    with one.client:
        yield one


def test_detect_answers_in_json_and_as_a_picture(server: Server) -> None:
    answer = server.client.post("/v1/detect", json={"image": image(), "names": ["cat", "dog"], "threshold": 0.6})
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "cats",
        "image": {"width": 60, "height": 40},
        "objects": [
            {"label": "cat", "score": 0.6, "box_xyxy_px": [0, 0, 30, 40]},
            {"label": "dog", "score": 0.6, "box_xyxy_px": [0, 0, 30, 40]},
        ],
    }
    drawn = server.client.post("/v1/detect", json={"image": image(), "names": ["cat"], "answer": "picture"})
    assert drawn.headers["content-type"] == "image/png"
    assert np.ptp(np.asarray(Image.open(BytesIO(drawn.content)))) > 0, "something is drawn on the plain image"


def test_a_form_does_as_well_as_json(server: Server) -> None:
    files = {"image": ("a.png", content())}
    answer = server.client.post("/v1/detect", files=files, data={"names": ["cat", "dog"], "threshold": "0.9"})
    assert [one["label"] for one in answer.json()["objects"]] == ["cat", "dog"]
    assert answer.json()["objects"][0]["score"] == 0.9
    listed = server.client.post("/v1/segment", files=files, data={"phrases": '["a cat"]', "model": "masks"})
    assert [one["phrase"] for one in listed.json()["objects"]] == ["a cat"]


def test_segment_answers_with_masks_in_the_size_of_the_image(server: Server) -> None:
    answer = server.client.post("/v1/segment", json={"image": image(), "phrases": ["a cat"]}).json()
    (found,) = answer["objects"]
    assert (found["phrase"], found["score"], found["present"]) == ("a cat", 0.75, 0.5)
    assert found["box_xyxy_px"] == [0, 0, 1, 1]
    assert coco_mask.decode(found["mask"]).sum() == 1
    assert found["mask"]["size"] == [40, 60]


def test_models_are_chosen_by_name(server: Server) -> None:
    names = {kind: [one["name"] for one in found] for kind, found in server.client.get("/v1/models").json().items()}
    assert names == {"detectors": ["cats", "dogs"], "segmenters": ["masks"]}
    asked = {"image": image(), "names": ["x"], "model": "dogs"}
    assert server.client.post("/v1/detect", json=asked).json()["model"] == "dogs"
    missing = server.client.post("/v1/detect", json=asked | {"model": "birds"})
    assert missing.status_code == 422
    assert missing.json()["error"] == "model: no detector 'birds' is served; served: cats, dogs"


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("detect", {}, "image: Field required"),
        ("detect", {"image": "?"}, "image: is no base64"),
        ("detect", {"image": base64.b64encode(b"no image").decode()}, "image: "),
        ("detect", {"image": image(), "threshold": 2}, "threshold: Input should be less than or equal to 1"),
        ("detect", {"image": image(), "nmaes": ["a"]}, "nmaes: Extra inputs are not permitted"),
        ("detect", {"image": image(), "names": ["unheard of"]}, "the name 'unheard of' is too long"),
        ("segment", {"image": image()}, "phrases: got none, and no boxes or points"),
        ("segment", {"image": image(), "boxes": [[5, 5, 1, 1]]}, "boxes: expected corners"),
        ("segment", {"image": image(), "boxes": [[70, 5, 80, 9]]}, "boxes: one lies outside of the image of 60x40"),
        ("segment", {"image": image(), "boxes": [[1, 1, 5, 5]], "phrases": ["a", "b"]}, "phrases: got 2 for 1 boxes"),
        (
            "segment",
            {"image": image(), "points": [{"x": 61, "y": 5}]},
            "points: one lies outside of the image",
        ),
        ("segment", {"image": image(), "points": [{"x": 5, "y": 5, "positive": False}]}, "points: none is positive"),
        (
            "segment",
            {"image": image(), "points": [{"x": 5, "y": 5}], "phrases": ["a", "b"]},
            "points: are on one",
        ),
        ("segment", {"image": image(), "points": [{"x": -1, "y": 5}]}, "points.0.x: Input should be greater than"),
        ("describe", {"image": image(), "masks": [{"size": [1, 1], "counts": "11"}]}, "mask 1: has size [1, 1]"),
        ("describe", {"image": image(), "masks": [{"size": [40, 60], "counts": [5]}]}, "mask 1: "),
        ("annotate", {"image": image(), "names": ["a"], "detector": "x"}, "model: no detector 'x' is served"),
    ],
)
def test_what_cannot_be_answered_is_one_line(server: Server, path: str, asked: Any, said: str) -> None:
    answer = server.client.post(f"/v1/{path}", json=asked)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)
    assert "\n" not in answer.json()["error"]


def test_no_json_is_no_request(server: Server) -> None:
    assert server.client.post("/v1/detect", content=b"{").status_code == 422
    assert server.client.post("/v1/nothing", json={}).status_code == 404
    assert server.client.get("/v1/detect").status_code == 405


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "https://images.example.org.evil.example/a.png",
        "http://images.example.org@127.0.0.1/a.png",
        "ftp://images.example.org/a.png",
        "http://[::1/a.png",
    ],
)
def test_urls_of_other_hosts_are_not_fetched(url: str) -> None:
    with (server := Server(url_hosts=("images.example.org",))).client:
        answer = server.client.post("/v1/detect", json={"image": url, "names": ["a"]})
    assert answer.status_code == 422
    assert "not fetched" in answer.json()["error"] or "no URL" in answer.json()["error"]


def test_bodies_and_images_that_are_too_large() -> None:
    with (server := Server(Limits(max_bytes=2000), max_pixels=1000)).client:
        large = server.client.post("/v1/detect", json={"image": image(), "names": ["a"]})
        assert (large.status_code, large.json()["error"].split(";")[0]) == (
            413,
            "image: has 60x40 pixels, at most 1000 are taken",
        )
        body = json.dumps({"image": "A" * 3000}).encode()
        assert server.client.post("/v1/detect", content=body).status_code == 413
        chunks = (body[i : i + 500] for i in range(0, len(body), 500))
        assert server.client.post("/v1/detect", content=chunks).status_code == 413, "without a length, too"


def test_a_token_is_asked_for_but_where_nothing_is_said() -> None:
    with (server := Server(Limits(token="sesame"))).client:
        asked = {"image": image(), "names": ["a"]}
        for header in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic sesame"}):
            refused = server.client.post("/v1/detect", json=asked, headers=header)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert server.client.get("/metrics").status_code == 401
        assert server.client.get("/openapi.json").status_code == 401
        assert server.client.get("/health").json() == {"status": "ok"}
        given = {"Authorization": "Bearer sesame"}
        assert server.client.post("/v1/detect", json=asked, headers=given).status_code == 200


def test_a_page_that_calls_this_machine_by_another_name_is_refused(server: Server) -> None:
    answer = server.client.get("/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 421


def test_requests_of_several_clients_share_a_batch_and_a_full_queue_says_when_to_come_again() -> None:
    with (server := Server(max_waiting=3, wait_s=0)).client:
        server.detector.gate.clear()
        server.detector.begun.clear()
        asked = {"image": image(), "names": ["a"]}
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(server.client.post, "/v1/detect", json=asked)
            server.detector.begun.wait(10)
            others = [pool.submit(server.client.post, "/v1/detect", json=asked) for _ in range(3)]
            while server.client.app.state.serving.batches.waiting < 3:  # type: ignore[attr-defined]
                pass
            full = server.client.post("/v1/detect", json=asked)
            server.detector.gate.set()
            assert [one.result(10).status_code for one in (first, *others)] == [200] * 4
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1
    assert server.detector.sizes[-2:] == [1, 3], "the three that waited went together"


def test_a_request_is_given_up_in_time() -> None:
    with (server := Server(timeout_s=0.05)).client:
        server.detector.gate.clear()
        answer = server.client.post("/v1/detect", json={"image": image(), "names": ["a"]})
        server.detector.gate.set()
    assert answer.status_code == 504


def test_stopping_finishes_what_was_begun_and_takes_nothing_more(server: Server) -> None:
    asked = {"image": image(), "names": ["a"]}
    batches = server.client.app.state.serving.batches  # type: ignore[attr-defined]
    server.detector.gate.clear()
    server.detector.begun.clear()
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(server.client.post, "/v1/detect", json=asked)
        server.detector.begun.wait(10)
        closing = pool.submit(batches.close)
        while not batches.closing:
            pass
        late = server.client.post("/v1/detect", json=asked)
        server.detector.gate.set()
        assert begun.result(10).status_code == 200
        closing.result(10)
    assert (late.status_code, late.headers["retry-after"]) == (503, "10")


def test_models_are_warm_before_it_is_ready_and_everything_is_counted(server: Server) -> None:
    assert server.detector.sizes == [1]
    assert server.segmenter.asked == [["object"]]
    assert server.client.get("/ready").status_code == 200
    server.client.post("/v1/detect", json={"image": image(), "names": ["a"]})
    server.client.get("/v1/../etc/passwd")
    server.client.get("/v1/jobs/0123456789abcdef")
    text = server.client.get("/metrics").text
    assert 'deixis_requests_total{route="/v1/jobs/{job_id}",status="404"} 1.0' in text, "ids are no labels"
    assert 'deixis_requests_total{route="/v1/detect",status="200"} 1.0' in text
    assert 'deixis_requests_total{route="other",status="404"} 1.0' in text, "unknown paths are one route"
    assert "deixis_batch_items_count 1.0" in text
    schema = server.client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]["requestBody"]["content"]
    whole = json.dumps(server.client.get("/openapi.json").json())
    named = set(re.findall(r"#/components/schemas/(\w+)", whole))
    assert named <= set(server.client.get("/openapi.json").json()["components"]["schemas"]), "all parts are there"
    assert set(schema["application/json"]["schema"]["properties"]) >= {"image", "names", "threshold", "answer"}
