"""Commands on a review: what was corrected is exported, trained on and reported."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pycocotools import mask as coco_mask
from small_reviews import small_review
from tiny_runs import VAL_SCENES, train_arguments, write_coco

from deixis.data.formats import read_dataset
from deixis.errors import DeixisError
from deixis.options.detect_train import DetectData
from deixis.options.review.serve import ReviewServeOptions
from deixis.recipes.detect.data.sources import read_training_data
from deixis.recipes.review.serve import opened_review, point_mask_of
from deixis.review import actions
from deixis.review.build import build_review


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """Picture 1 accepted, of picture 2 a name corrected and a box rejected, picture 3 not looked at."""
    with small_review(tmp_path / "review") as store:
        actions.finish_image(store, 1, version=1, annotator="ann")
        actions.act_on_object(store, "rename", 2, version=1, annotator="ann", label="größe")
        actions.act_on_object(store, "accept", 3, version=1, annotator="ann")
        actions.act_on_object(store, "reject", 4, version=1, annotator="bob")
        return store.file


def test_an_export_says_what_was_corrected_and_lost(deixis: Any, reviewed: Path, tmp_path: Path) -> None:
    code, out, err = deixis(["review", "export", str(reviewed), "--output", str(tmp_path / "out")])
    assert code == 0, err
    assert (
        "review.db: 2 images reviewed by 2 people; objects: 2 accepted, 1 renamed, 0 moved, 0 drawn, 1 rejected" in out
    )
    read = read_dataset(tmp_path / "out")
    labels = [[read.vocabulary.names[i] for i in read[n].instances.class_ids] for n in range(len(read))]
    assert labels == [["cat"], ["größe", "cat"]]
    assert read.vocabulary.category_ids == (7, 3, 5)
    code, out, err = deixis(
        ["review", "export", str(reviewed), "--part", "all", "--to", "yolo", "--output", str(tmp_path / "all")]
    )
    assert code == 0, err
    assert len(read_dataset(tmp_path / "all" / "data.yaml")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["review", "export"], "--db is required"),
        (["review", "export", "missing.db", "--output", "out"], "missing.db: no such file"),
        (["review", "serve"], "--data is required"),
        (["review", "serve", "labels.json", "--db", "review.txt"], "--db: expected a file that ends in .db"),
        (["review", "serve", "labels.json", "--host", "0.0.0.0"], "open to other machines; give --token"),
        (["review", "serve", "missing.json", "--port", "0"], "missing.json: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(deixis: Any, arguments: list[str], said: str) -> None:
    code, _, err = deixis(arguments)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_serve_makes_a_review_once_and_goes_on_with_it(
    deixis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    served: list[dict[str, Any]] = []

    def run(server: Any, sockets: Any) -> None:
        with TestClient(server.config.app, base_url="http://127.0.0.1") as client:
            served.append(client.get("/api/review").json())
            asked = {"annotator": "ann", "kind": "accept", "object": len(served), "version": 1}
            assert client.post("/api/actions", json=asked).status_code == 200

    monkeypatch.setattr(uvicorn.Server, "run", run)
    labels = write_coco(tmp_path / "data")
    for asked in ([str(labels)], [str(labels)], ["review.db"]):
        code, out, err = deixis(["review", "serve", *asked, "--port", "0"])
        assert code == 0, err
        assert re.search(r"reviewing on http://127\.0\.0\.1:[1-9]\d*/;", out), "the port that was chosen"
    assert [one["open"] for one in served] == [6, 5, 4]
    assert not (tmp_path / "review.db-wal").exists(), "what is closed is one file"
    other = write_coco(tmp_path / "other")
    code, _, err = deixis(["review", "serve", str(other), "--port", "0"])
    assert code == 2
    assert "--db: review.db is a review of" in err
    (tmp_path / "data" / "images" / "3.jpg").write_bytes(b"no image")
    code, _, err = deixis(["review", "serve", str(labels), "--db", "new.db", "--port", "0"])
    assert (code, "3.jpg" in err, (tmp_path / "new.db").exists()) == (2, True, False)


@pytest.mark.parametrize(
    "command", [["review", "serve", "labels.json"], ["serve", "--detector", "no_model"], ["play", "--detector", "none"]]
)
def test_a_port_that_is_taken_is_one_line_before_anything_is_loaded(deixis: Any, command: list[str]) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    if command[0] == "play" and find_spec("gradio") is None:
        pytest.skip("the extra 'play' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = deixis([*command, "--port", place.rpartition(":")[2]])
    assert code == 2
    assert f"--port: cannot listen on http://{place} (Address already in use); choose another" in err
    assert len(err.strip().splitlines()) == 1


def test_images_alone_are_reviewed_for_the_names_of_a_model(tiny_model: Path, tmp_path: Path) -> None:
    write_coco(tmp_path)
    options = ReviewServeOptions(
        data=str(tmp_path / "images"), db=tmp_path / "review.db", model=str(tiny_model), names=("star",), threshold=0.0
    )
    with opened_review(options) as store:
        rows = store.rows("SELECT labelled, status, uncertainty FROM images")
        assert [(row["labelled"], row["status"]) for row in rows] == [(0, "open")] * 6
        assert {row["origin"] for row in store.rows("SELECT origin FROM objects")} == {"model"}
        assert store.names == ["star"]
    with pytest.raises(DeixisError, match=r"for images alone give --model"):
        opened_review(ReviewServeOptions(data=str(tmp_path / "images"), db=tmp_path / "other.db"))


@pytest.mark.slow
def test_a_click_of_the_built_in_segmenter_makes_a_mask() -> None:
    data = read_dataset(VAL_SCENES)
    sample = data[0]
    x1, y1, x2, y2 = sample.instances.boxes_xyxy_px[0].tolist()
    mask = point_mask_of(ReviewServeOptions(data="labels.json", segmenter="builtin", device="cpu"))
    found = mask(np.asarray(sample.image), (x1 + x2) / 2, (y1 + y2) / 2)
    assert found["size"] == list(sample.size_hw)
    assert coco_mask.area(found) > 0


def reviewed_scenes(folder: Path) -> Path:
    """Two of four generated pictures, reviewed."""
    with closing(build_review(folder / "review.db", read_dataset(VAL_SCENES), source=VAL_SCENES)) as store:
        for number in (1, 2):
            actions.finish_image(store, number, version=1, annotator="ann")
    return folder / "review.db"


LINE = "review.db: 2 images reviewed by 1 people; objects: "


def test_what_a_run_reads_of_a_review(tmp_path: Path) -> None:
    file = reviewed_scenes(tmp_path)
    for split, images in (("", 2), ("#all", 4)):
        read = read_training_data(DetectData(data=(f"{file}{split}", VAL_SCENES), val_data=VAL_SCENES))
        assert len(read.training) == images + 4
        assert len(read.reviewed) == 1
        assert read.reviewed[0].startswith(LINE)


@pytest.mark.slow
def test_a_run_trains_on_what_was_reviewed_and_reports_the_corrections(
    deixis: Any, tiny_model: Path, tmp_path: Path
) -> None:
    file = reviewed_scenes(tmp_path)
    arguments = train_arguments(tiny_model, tmp_path, "--data", str(file), "--epochs", "1")
    code, out, err = deixis([*arguments, "--compare-with", str(tiny_model)])
    assert code == 0, err
    gain = re.search(r"AP (\d\.\d{4}) beside (\d\.\d{4}) of (\S+) on the same images: ([+-]\d\.\d{4})\.", out)
    assert gain is not None
    lines = [json.loads(line) for line in (tmp_path / "detector" / "metrics.jsonl").read_text().splitlines()]
    before, after = (line["AP"] for line in lines if "AP" in line)
    assert gain[3] == str(tiny_model), "the weights that it started from, so before and beside are one"
    assert [float(gain[place]) for place in (1, 2, 4)] == pytest.approx([after, before, after - before], abs=1e-4)
    assert LINE in out
    assert "2 training and 4 validation images" in out
    report = (tmp_path / "detector" / "report.html").read_text()
    assert f"Trained on corrections of people, {LINE}" in report
    assert gain[0] in report
