"""The routes of the triage page: answers, conflicts, limits, hostile names; the files it loads."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_reviews import small_review

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from fastapi.testclient import TestClient

from deixis.geometry.rle import bitmap_rle
from deixis.records import Rle
from deixis.review.app import FILES, STATIC, make_review_app
from deixis.review.store import Store
from deixis.serving.door import Limits


def square(pixels: np.ndarray, x: float, y: float) -> Rle:
    mask = np.zeros(pixels.shape[:2], bool)
    mask[int(y) - 3 : int(y) + 3, int(x) - 5 : int(x) + 5] = True
    return bitmap_rle(mask)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with small_review(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> TestClient:
    limits = Limits(hosts=("testserver",), max_bytes=5000)
    return TestClient(make_review_app(store, limits, point_mask=square))


def act(client: TestClient, annotator: str = "ann", **asked: Any) -> Any:
    return client.post("/api/actions", json={"annotator": annotator, **asked})


def test_the_queue_begins_with_what_is_most_worth_a_look(client: TestClient) -> None:
    review = client.get("/api/review").json()
    assert (review["images"], review["done"], review["open"]) == (3, 0, 5)
    assert review["names"] == ["cat", "<b>dog</b>", "größe"]
    queue = client.get("/api/images").json()
    assert [row["id"] for row in queue] == [2, 3, 1]
    assert queue[0]["why"] == "labels that the model does not find: 1; detections without such a label: 1"
    assert [row["id"] for row in client.get("/api/images?order=file").json()] == [1, 2, 3]
    assert [row["id"] for row in client.get("/api/images", params={"label": "<b>dog</b>"}).json()] == [2]
    assert client.get("/api/images?order=rowid").status_code == 422
    image = client.get("/api/images/2").json()
    assert [(one["label"], one["origin"], one["status"]) for one in image["objects"]] == [
        ("<b>dog</b>", "label", "open"),
        ("cat", "label", "open"),
        ("cat", "model", "open"),
    ]
    assert client.get("/api/images/9").json() == {"error": "images: no id 9"}


def test_actions_are_there_at_once_and_move_the_image_out_of_the_queue(client: TestClient, store: Store) -> None:
    image = act(client, kind="rename", object=1, version=1, label="größe").json()
    assert image["objects"][0] | {"at": ""} == {
        "id": 1,
        "image": 1,
        "label": "größe",
        "score": 0.9,
        "origin": "label",
        "status": "accepted",
        "annotator": "ann",
        "at": "",
        "version": 2,
        "box": [2, 3, 20, 33],
        "change": "renamed",
        "was": "cat",
        "outlines": [],
    }
    assert [row["id"] for row in client.get("/api/images?status=open").json()] == [2, 3]
    added = act(client, kind="add", image=3, label="new one", box=[1, 1, 9, 9]).json()
    assert added["added"] == 6
    assert client.get("/api/review").json()["names"][-1] == "new one"
    done = act(client, kind="finish", image=3, version=added["version"]).json()
    assert (done["status"], [one["status"] for one in done["objects"]]) == ("done", ["accepted"] * 2)
    opened = act(client, kind="unfinish", image=3, version=done["version"]).json()
    assert opened["status"] == "open"
    with Store(store.file) as other:
        assert len(other.rows("SELECT * FROM actions")) == 4
    for kind in ("unfinish", "finish", "add", "rename"):
        assert client.post("/api/undo", json={"annotator": "ann"}).status_code == 200, kind
    assert client.post("/api/undo", json={"annotator": "ann"}).json() == {"error": "ann has nothing to undo"}
    assert client.get("/api/review").json()["open"] == 5


def test_the_second_of_two_reviewers_is_shown_the_conflict(client: TestClient) -> None:
    since = client.get("/api/changes").json()["latest"]
    assert act(client, "ann", kind="reject", object=1, version=1).status_code == 200
    late = act(client, "bob", kind="accept", object=1, version=1)
    assert late.status_code == 409
    assert late.json() == {"error": "ann changed this meanwhile; look again", "by": "ann"}
    assert client.get(f"/api/changes?since={since}").json()["changes"] == [{"image": 1, "annotator": "ann"}]
    assert act(client, "bob", kind="accept", object=1, version=2).json()["objects"][0]["annotator"] == "bob"
    assert client.post("/api/undo", json={"annotator": "ann"}).status_code == 409, "it is bob's now"


def test_a_mask_by_click_becomes_an_object_with_its_outline(client: TestClient, store: Store) -> None:
    mask = client.post("/api/images/3/mask", json={"x": 20, "y": 10}).json()["mask"]
    image = act(client, kind="add", image=3, label="cat", mask=mask).json()
    added = image["objects"][-1]
    assert added["box"] == [15, 7, 25, 13]
    assert sorted(map(tuple, added["outlines"][0])) == [(15, 7), (15, 13), (25, 7), (25, 13)]
    outside = client.post("/api/images/3/mask", json={"x": 60, "y": 10})
    assert (outside.status_code, outside.json()["error"]) == (422, "point: lies outside of the image of 60x40 pixels")
    moved = act(client, kind="move", object=added["id"], version=1, box=[0, 0, 9, 9]).json()["objects"][-1]
    assert moved["outlines"] == [], "a mask does not fit where its box went"
    without = TestClient(make_review_app(store, Limits()))
    assert "no segmenter" in without.post("/api/images/3/mask", json={"x": 1, "y": 1}).json()["error"]


def test_pictures_and_crops_are_jpeg(client: TestClient) -> None:
    picture = client.get("/api/pictures/2")
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(picture.content)).size == (60, 40)
    crop = Image.open(BytesIO(client.get("/api/crops/2").content))  # 20 x 10 pixels and a margin of 7
    assert crop.size == (4 * 33, 4 * 23)
    assert client.get("/api/pictures/9").status_code == 422


def test_the_grid_is_filtered_by_status_class_and_score(client: TestClient) -> None:
    act(client, kind="accept", object=1, version=1)

    def ids(**wanted: Any) -> list[int]:
        return [row["id"] for row in client.get("/api/objects", params=wanted).json()["objects"]]

    assert ids(status="accepted") == [1]
    assert sorted(ids(label="cat")) == [1, 3, 4, 5]
    assert sorted(ids(min_score=0.75)) == [1, 4]
    assert ids(min_score=0.1, max_score=0.75) == [5]
    assert ids(sampled=True) == []
    assert client.get("/api/objects?offset=4").json() == {
        "total": 5,
        "objects": client.get("/api/objects?offset=4").json()["objects"],
    }
    act(client, kind="delete", object=5, version=1)
    assert 5 not in ids()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"kind": "burn", "object": 1, "version": 1}, "kind: expected one of accept, reject"),
        ({"kind": "accept", "object": 99, "version": 1}, "objects: no id 99"),
        ({"kind": "accept", "annotator": ""}, "annotator: "),
        ({"kind": "rename", "object": 1, "version": 1, "label": "\x00 "}, "label: expected a name"),
        ({"kind": "add", "image": 1, "label": "cat", "box": [1, 1, 1, 1]}, "box: has less than one pixel"),
        (
            {"kind": "add", "image": 1, "label": "cat", "mask": {"size": [4, 4], "counts": "1"}},
            "mask: expected the size",
        ),
        ({"kind": "add", "image": 1, "label": "cat", "boxes": []}, "boxes: Extra inputs"),
    ],
)
def test_what_cannot_be_done_is_one_line(client: TestClient, asked: dict[str, Any], said: str) -> None:
    answer = client.post("/api/actions", json={"annotator": "ann", **asked})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)
    assert client.get("/api/changes").json()["latest"] == 0


def test_other_sites_and_paths_get_nothing(client: TestClient, store: Store) -> None:
    body = '{"annotator": "eve", "kind": "reject", "object": 1, "version": 1}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert client.post("/api/actions", content=body, headers={"Content-Type": kind}).status_code == 415
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    for name in ("..%2fapp.py", "%2e%2e/store.py", "nothing.js", "../../etc/passwd"):
        assert client.get(f"/static/{name}").status_code in (404, 405)
    assert client.post("/api/actions", content=b"{" * 6000).status_code == 413
    assert store.row("objects", 1)["status"] == "open"
    locked = TestClient(make_review_app(store, Limits(token="sesame")))
    assert [locked.get(path).status_code for path in ("/", "/api/review", "/static/main.js")] == [401] * 3
    assert locked.get("/api/review", headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_the_page_loads_only_its_own_files_and_takes_names_as_text(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path, file in FILES.items():
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.content == file.read_bytes()
        assert "content-security-policy" in answer.headers
    text = "".join(file.read_text(encoding="utf-8") for file in STATIC.iterdir())
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", "onclick="):
        assert way not in text.replace("http://www.w3.org/2000/svg", ""), way
