"""What the page asks of the models and shows of it, without a browser; Python and commands that it gives are run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the playground is an extra; pip install 'deixis[play]'")
from clip_miniatures import video

from deixis.cli.main import run
from deixis.data.formats.coco.read import read_coco
from deixis.data.pixels.images import load
from deixis.data.scenes.from_text import read_scenes
from deixis.errors import DeixisError
from deixis.inference.detect.detector import load_detector
from deixis.inference.refer.segmenter import load_segmenter
from deixis.recipes import play as play_recipe
from deixis.serving.models import Models
from deixis.serving.playground.asking import MAX_FRAMES, Shot, click, described, detect, opened, segment, texts_of
from deixis.serving.playground.snippets import command_of, python_of

PIXELS = np.asarray(load(read_scenes("scenes:split=demo_train,count=1,seed=5")[0]).image)
NAMES = "red circle, blue square, <script>alert(1)</script>"
ODD = "a 'b'; \"c\" $(d).png"
MAX_PIXELS = 10**6


def at_once(work: Callable[[], Any]) -> Any:
    return work()


@pytest.fixture(scope="module")
def models() -> Models:
    return Models({"d": load_detector("builtin", "cpu")}, {"s": load_segmenter("builtin", "cpu")})


@pytest.fixture
def shot(tmp_path: Path) -> Shot:
    Image.fromarray(PIXELS).save(tmp_path / ODD)
    return opened(tmp_path / ODD, MAX_PIXELS)


def executed(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(compile(program, "shown", "exec"), variables)
    return variables


def test_the_threshold_chooses_among_what_was_found(models: Models, shot: Shot) -> None:
    look = detect(models.detectors["d"], at_once, "d", NAMES, shot)
    for threshold in (0.0, 0.2, 0.5, 1.0):
        (direct,) = models.detectors["d"].predict([PIXELS], list(look.texts), threshold)
        assert [row[0] for row in look.rows(0, threshold)] == direct.labels
    assert len(look.rows(0, 0.0)) > len(look.rows(0, 0.3)) > len(look.rows(0, 1.0)) == 0
    assert (look.drawn(0, 0.3) != look.drawn(0, 1.0)).any()


def test_coco_is_what_is_shown(models: Models, shot: Shot, tmp_path: Path) -> None:
    look = described(models, at_once, detect(models.detectors["d"], at_once, "d", NAMES, shot), 0, 0.3)
    rows = look.rows(0, 0.3)
    assert all(row[3] for row in rows)  # each has a caption
    content = json.loads(look.coco(0.3, ODD))
    assert [one["caption"] for one in content["annotations"]] == [row[3] for row in rows]
    assert [one["score"] for one in content["annotations"]] == pytest.approx([row[1] for row in rows], abs=1e-3)
    (tmp_path / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    (sample,) = read_coco(tmp_path / "coco.json")
    assert [sample.vocabulary.names[i] for i in sample.instances.class_ids] == [row[0] for row in rows]


def test_the_command_and_the_python_of_boxes(
    models: Models, shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = detect(models.detectors["d"], at_once, "d", NAMES, shot)
    labels = [row[0] for row in look.rows(0, 0.3)]
    found = executed(python_of(look, "builtin", ODD, threshold=0.3, is_film=False), tmp_path, monkeypatch)["found"]
    assert found.labels == labels
    assert Image.open(tmp_path / "found.png").size == look.drawn(0, 0.3).shape[1::-1]
    words = shlex.split(command_of(look, "builtin", ODD, threshold=0.3, url=""))
    assert words[0] == "deixis"
    run([*words[1:], "--device", "cpu"])
    results = json.loads((tmp_path / "predictions" / "coco_results.json").read_text(encoding="utf-8"))
    assert len(results) == len(labels) > 0


def test_the_command_and_the_python_of_phrases(
    models: Models, shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = segment(models.segmenters["s"], at_once, "s", "the red circle, left\nthe blue square", shot)
    assert look.texts == ("the red circle, left", "the blue square")
    scores = np.sort(look.scores(0))
    between = round(float(scores.mean()), 3)  # one of both is shown, if they differ
    shown = [look.texts[i] for i in look.shown(0, between)]
    found = executed(python_of(look, "builtin", ODD, threshold=between, is_film=False), tmp_path, monkeypatch)["found"]
    assert [one.text for one, area in zip(found, found.areas_px, strict=True) if area] == shown
    run(shlex.split(command_of(look, "builtin", ODD, threshold=between, url=""))[1:])
    assert (tmp_path / "segmentations" / "segmentations.json").is_file()


def test_clicks(models: Models, shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = click(models, at_once, shot, None, at=(0, 60.0, 40.0))
    look = click(models, at_once, shot, look, at=(0, 100.5, 60.0))
    assert [row[0] for row in look.rows(0, 1.0)] == ["click 1", "click 2"]  # whatever the threshold
    assert [row[2] == "nothing" for row in look.rows(0, 1.0)] == [area == 0 for area in look.frames[0].areas_px]
    assert [c["name"] for c in json.loads(look.coco(1.0, ODD))["categories"]] == ["click 1", "click 2"]
    program = python_of(look, "builtin", ODD, threshold=0.3, is_film=False)
    last = executed(program, tmp_path, monkeypatch)["mask"]
    assert last.mask_rle == look.frames[0][1].mask_rle
    lines = command_of(look, "builtin", ODD, threshold=0.3, url="http://127.0.0.1:1").splitlines()
    fields = [word.partition("=")[::2] for word in shlex.split(lines[1]) if "=" in word]
    assert fields == [("image", f"@{ODD}"), ("model", "s"), ("points", '[{"x": 100.5, "y": 60.0}]')]
    with pytest.raises(DeixisError, match="inside of the picture"):
        click(models, at_once, shot, look, at=(0, 1e4, 0.0))


def test_frames_of_a_film(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = opened(video(tmp_path / "film.mp4", np.stack([PIXELS] * 3)), MAX_PIXELS)
    assert (film.film, film.numbers) == (True, (0, 1, 2))
    look = detect(models.detectors["d"], at_once, "d", "red circle", film)
    assert all(look.rows(frame, 0.2) for frame in range(3))
    assert len(json.loads(look.coco(0.2, film.name))["images"]) == 3
    found = executed(python_of(look, "builtin", film.name, threshold=0.2, is_film=True), tmp_path, monkeypatch)["found"]
    assert len(found) == len(look.rows(2, 0.2))
    clicked = click(models, at_once, film, look, at=(1, 64.0, 64.0))
    assert [len(clicked.rows(frame, 0.0)) for frame in range(3)] == [0, 1, 0]
    assert len(json.loads(clicked.coco(0.0, film.name))["annotations"]) == 1
    long = opened(video(tmp_path / "long.mp4", np.zeros((MAX_FRAMES * 2 + 1, 16, 16, 3), np.uint8)), MAX_PIXELS)
    assert (len(long.frames), long.numbers[-1]) == (MAX_FRAMES, MAX_FRAMES * 2)


def test_what_cannot_be_used(models: Models, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    for name, pixels in (("a.png", 100), ("b.png", MAX_PIXELS), ("folder", MAX_PIXELS)):
        with pytest.raises(DeixisError, match=name):
            opened(tmp_path / name, pixels)
    shot = opened(tmp_path / "a.png", MAX_PIXELS)
    for typed in ("--names", "a=b", "x" * 201, ",".join(map(str, range(101)))):
        with pytest.raises(DeixisError):
            texts_of(typed, are_names=True)
    with pytest.raises(DeixisError, match="phrase"):
        segment(models.segmenters["s"], at_once, "s", " \n ", shot)
    alone = Models(models.detectors, {})
    with pytest.raises(DeixisError, match="--segmenter"):
        click(alone, at_once, shot, None, at=(0, 1.0, 1.0))


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_recipe, "find_spec", lambda name: None)
    with pytest.raises(DeixisError, match=r"pip install 'deixis\[play\]'"):
        run(["play"])


def test_other_machines_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEIXIS_TOKEN", raising=False)
    with pytest.raises(DeixisError, match="is open to other machines; give --token"):
        run(["play", "--host", "0.0.0.0"])


def test_the_page_is_behind_the_token_and_takes_no_route(models: Models) -> None:
    pytest.importorskip("gradio", reason="the playground is an extra; pip install 'deixis[play]'")
    from fastapi.testclient import TestClient

    from deixis.serving.app import make_app
    from deixis.serving.door import Limits
    from deixis.serving.playground.mounting import mount_playground

    app = make_app(models, Limits(token="secret", hosts=("127.0.0.1",)))
    places = {"detectors": {"d": "builtin"}, "segmenters": {"s": "builtin"}}
    mount_playground(app, **places, url="http://127.0.0.1", max_bytes=10**6, stopping=lambda: True)
    client = TestClient(app, base_url="http://127.0.0.1")
    refused = client.get("/", headers={"Accept": "text/html"})
    assert refused.status_code == 401
    assert "Basic" in refused.headers["WWW-Authenticate"]  # the browser asks for a password
    page = client.get("/", auth=("anyone", "secret"))
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    served = client.get("/v1/models", auth=("anyone", "secret")).json()
    assert [one["name"] for one in served["detectors"]] == ["d"]
    assert client.get("/", auth=("anyone", "secret"), headers={"Host": "elsewhere"}).status_code == 421
