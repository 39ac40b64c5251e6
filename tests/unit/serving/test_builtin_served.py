"""The built-in models behind the server: its answers are those of Python, and a process ends when it is told to."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("fastapi", reason="serving is an extra; pip install 'deixis[serve]'")
from fastapi.testclient import TestClient

from deixis.cli.main import run
from deixis.data.pixels.frames import video_writer
from deixis.data.pixels.images import load
from deixis.data.scenes.from_text import read_scenes
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import load_segmenter
from deixis.serving.app import make_app
from deixis.serving.door import Limits
from deixis.serving.models import Models

PIXELS = np.asarray(load(read_scenes("scenes:split=demo_train,count=1,seed=5")[0]).image)


def image() -> str:
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[TestClient, Models]]:
    models = Models({"d": load_detector("builtin", "cpu")}, {"s": load_segmenter("builtin", "cpu")})
    with TestClient(make_app(models, Limits(), max_pixels=10**6), base_url="http://localhost") as client:
        yield client, models


def test_answers_are_those_of_python(served: tuple[TestClient, Models]) -> None:
    client, models = served
    asked = {"image": image(), "names": ["red circle", "blue square"], "threshold": 0.1}
    found = client.post("/v1/detect", json=asked).json()["objects"]
    (direct,) = models.detectors["d"].predict([PIXELS], asked["names"], 0.1)
    assert [one["label"] for one in found] == direct.labels
    assert found
    np.testing.assert_allclose([one["box_xyxy_px"] for one in found], direct.boxes_xyxy_px, atol=0.01)

    phrases = ["the red circle"]
    (answer,) = client.post("/v1/segment", json={"image": image(), "phrases": phrases}).json()["objects"]
    (segmented,) = models.segmenters["s"].segment([PIXELS], phrases)
    assert answer["mask"]["counts"].encode() == segmented[0].mask_rle["counts"]


def test_boxes_masks_and_captions(served: tuple[TestClient, Models]) -> None:
    client, _ = served
    asked = {"image": image(), "boxes": [[10, 10, 60, 60]], "phrases": ["the circle"]}
    answer = client.post("/v1/segment", json=asked).json()["objects"]
    assert [(one["phrase"], one["mask"]["size"]) for one in answer] == [("the circle", list(PIXELS.shape[:2]))]
    mask = np.zeros(PIXELS.shape[:2], np.uint8)
    mask[10:60, 10:60] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    given = {"size": list(mask.shape), "counts": rle["counts"].decode()}
    said = client.post("/v1/describe", json={"image": image(), "masks": [given]}).json()["objects"]
    assert [type(one["caption"]) for one in said] == [str]
    both = client.post("/v1/annotate", json={"image": image(), "names": ["circle"], "max_objects": 2}).json()
    assert both["left_out"] + len(both["objects"]) <= 2
    drawn = client.post("/v1/annotate", json={"image": image(), "names": ["circle"], "answer": "picture"})
    assert Image.open(BytesIO(drawn.content)).format == "PNG"


def test_a_film_is_tracked_as_in_python(
    served: tuple[TestClient, Models], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("supervision", reason="tracking needs supervision")
    monkeypatch.setitem(sys.modules, "trackers", importlib.import_module("stand_in_trackers"))
    client, models = served
    path = tmp_path / "film.mp4"
    with video_writer(path, 24) as write:
        for _ in range(3):
            write(PIXELS)
    names = ["red circle", "blue square"]
    asked = {"video": base64.b64encode(path.read_bytes()).decode(), "names": names, "threshold": 0.1}
    frames = client.post("/v1/track", json=asked).json()["frames"]
    direct = list(models.detectors["d"].track(path, names, 0.1))
    assert [len(row["objects"]) for row in frames] == [len(found) for found in direct]
    tracked = [one["track_id"] for one in frames[2]["objects"]]
    assert tracked == [one.track_id for one in direct[2]]
    assert any(tracked), "something is followed"


def test_points_give_one_mask_that_holds_them(served: tuple[TestClient, Models]) -> None:
    client, models = served
    points = [{"x": 40, "y": 40}, {"x": 5.5, "y": 3, "positive": False}]
    (answer,) = client.post("/v1/segment", json={"image": image(), "points": points}).json()["objects"]
    (boxed,) = client.post(
        "/v1/segment", json={"image": image(), "points": points, "boxes": [[20, 20, 70, 70]], "phrases": ["a circle"]}
    ).json()["objects"]
    assert (answer["phrase"], boxed["phrase"]) == ("object", "a circle")
    assert answer["mask"]["size"] == list(PIXELS.shape[:2])
    direct = PromptedMasks(models.segmenters["s"]).at_clicks(
        PIXELS, np.array([[40, 40], [5.5, 3]]), np.array([True, False])
    )
    assert answer["mask"]["counts"].encode() == direct.mask_rle["counts"]
    assert answer["mask"] != boxed["mask"], "the box is asked with, too"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--detector or --segmenter is required"),
        (["--detector", "builtin", "--host", "0.0.0.0"], "is open to other machines; give --token"),
        (["--detector", "builtin", "builtin"], "--detector: expected a name of its own for each"),
        (["--detector", "builtin", "--folders", "/nowhere/at/all"], "--folders: '/nowhere/at/all' is no folder"),
        (["--detector", "builtin", "--port", "99999"], "--port: expected a number from 0 to 65535"),
    ],
)
def test_options_that_cannot_be_served(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEIXIS_TOKEN", raising=False)
    with pytest.raises(Exception, match=said):
        run(["serve", *flags])
