"""Whole runs of `deixis annotate`: files that our readers read, goes on, one line for each bad picture."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import stand_in_trackers
from clip_miniatures import moving_bar, video
from network_camera import network_camera
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_refer_runs import write_tiny_segmenter

from deixis.data.formats import read_dataset
from deixis.data.pixels.frames import open_frames
from deixis.data.refer_formats import read_refer
from deixis.inference.annotator import Annotator


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model", seed=3)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (48 + number, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number} é.png")
    return folder


def grid(photos: Path | list[Path], segmenter: Path, output: Path, *more: str) -> list[str]:
    images = photos if isinstance(photos, list) else [photos]
    given = ("--images", *map(str, images)) if images else ()
    return [
        *("annotate", *given, "--segmenter", str(segmenter), "--output", str(output)),
        *("--points", "2", "--least-predicted-iou", "0", "--max-objects", "2", "--max-new-tokens", "4"),
        *("--max-tiles", "1", "--cycle-threshold", "0", *more),
    ]


def read_both(output: Path) -> None:
    """Both files come back through our own readers as they were written."""
    lines = [json.loads(line) for line in (output / "annotations.jsonl").read_text().splitlines()[1:]]
    lines = [line for line in lines if "error" not in line]
    coco = read_dataset(str(output / "coco.json"))
    written = json.loads((output / "coco.json").read_text())
    assert len(coco) == len(lines) == len(written["images"])
    for sample, line in zip((coco[i] for i in range(len(coco))), lines, strict=True):
        assert sample.image.is_file()
        assert [sample.vocabulary.names[i] for i in sample.instances.class_ids] == [o["name"] for o in line["objects"]]
        for number, found in enumerate(line["objects"]):
            mask = coco_mask.decode(sample.instances.masks_rle[number])
            assert np.array_equal(mask, coco_mask.decode(found["mask"]))
            assert sample.instances.boxes_xyxy_px[number].tolist() == pytest.approx(found["box_xyxy_px"], abs=0.02)
    phrases = read_refer(output / "expressions.json")
    asked = [(e.texts[0], e.masks_rle[0]) for i in range(len(phrases)) for e in phrases[i].expressions]
    known = [(found["caption"], found["mask"]) for line in lines for found in line["objects"] if found["caption"]]
    assert [text for text, _ in asked] == [text.strip() for text, _ in known]
    for (_, mask), (_, other) in zip(asked, known, strict=True):
        assert np.array_equal(coco_mask.decode(mask), coco_mask.decode(other))


def test_without_names_everything_is_written_and_read_back(segmenter, photos, tmp_path, deixis) -> None:
    code, out, err = deixis(grid(photos, segmenter, tmp_path / "out"))
    assert code == 0, err
    assert "objects in 3 images" in out
    read_both(tmp_path / "out")
    written = json.loads((tmp_path / "out/coco.json").read_text())
    provenance = written["info"]["provenance"]
    assert provenance["segmenter"] == str(segmenter)
    assert len(provenance["segmenter_weights"]) == 12
    assert {"points", "least_predicted_iou", "prompts", "behaviour"} <= set(provenance)
    assert not {"names", "threshold"} & set(provenance)
    (one, *_) = written["annotations"]
    assert one["score"] == one["predicted_iou"]
    assert one["detector_score"] is None
    assert -50 < one["caption_log_prob"] < 0
    assert 0 <= one["cycle_iou"] <= 1
    page = (tmp_path / "out/gallery.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # needs nothing else
    assert html.escape(one["caption"], quote=True) in page


def test_with_names_categories_are_the_names(segmenter, tiny_model, photos, tmp_path, deixis) -> None:
    """The random detector sees things everywhere; what counts is that its names, boxes and scores arrive."""
    more = ("--detector", tiny_model, "--names", "<star>", "fish", "--threshold", "0", "--least-fit", "0")
    code, _, err = deixis([*grid(photos, segmenter, tmp_path / "out"), *more])
    assert code == 0, err
    read_both(tmp_path / "out")
    written = json.loads((tmp_path / "out/coco.json").read_text())
    assert [category["name"] for category in written["categories"]] == ["<star>", "fish"]
    assert written["annotations"]
    for found in written["annotations"]:
        assert found["score"] == found["detector_score"]
        assert found["mask_prompt"] in ("box", "phrase")
    assert "<star>" not in (tmp_path / "out/gallery.html").read_text()  # escaped


def test_an_interrupted_run_ends_like_one_that_was_not(segmenter, photos, tmp_path, deixis, monkeypatch) -> None:
    whole, cut = tmp_path / "a/out", tmp_path / "b/out"
    assert deixis(grid(photos, segmenter, whole))[0] == 0
    work, seen = Annotator.annotate_one, []

    def interrupted(self, image, names):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(image)
        return work(self, image, names)

    monkeypatch.setattr(Annotator, "annotate_one", interrupted)
    code, out, _ = deixis(grid(photos, segmenter, cut))
    assert code == 130
    assert "run the same command again to resume" in out
    seen.clear()
    code, out, _ = deixis(grid(photos, segmenter, cut))
    assert code == 0
    assert "resuming: 2 of 3 images are done" in out
    assert [image.name for image in seen] == ["2 é.png"]
    for name in ("annotations.jsonl", "coco.json", "expressions.json", "gallery.html"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    code, _, err = deixis(grid(photos, segmenter, cut, "--points", "3"))
    assert code == 2
    assert "made with points 2, now it is 3" in err


def test_bad_pictures_are_a_line_each_and_the_others_go_on(segmenter, photos, tmp_path, deixis, monkeypatch):
    monkeypatch.setattr("deixis.recipes.annotate.GALLERY_IMAGES", 1)
    (photos / "0 broken.jpg").write_bytes(b"no picture")
    code, out, err = deixis(grid(photos, segmenter, tmp_path / "out"))
    assert code == 0, err
    assert "3 images" in out
    assert "1 unreadable images" in out
    (line,) = [line for line in err.splitlines() if "broken.jpg" in line]
    assert line.startswith("deixis: warning: left out:")
    read_both(tmp_path / "out")
    assert "2 more images are not shown" in (tmp_path / "out/gallery.html").read_text()
    for photo in photos.glob("*.png"):
        photo.unlink()
    code, _, err = deixis(grid(photos, segmenter, tmp_path / "other"))
    assert code == 2
    assert "none of 1 images can be read" in err


def test_options_that_cannot_be_meant(deixis) -> None:
    for more, told in (
        ((), "--images is required, as in --images photos/"),
        (("--images", "a.jpg", "--names", " "), "--names"),
        (("--images", "a.jpg", "--least-fit", "2"), "--min-fit: expected a number from 0 to 1, got 2.0"),
        (("--images", "a.jpg", "--points", "0"), "--points: expected 1 or more, got 0"),
    ):
        code, _, err = deixis(["annotate", *more])
        assert code == 2
        assert told in err


def test_real_photographs(segmenter, shared_data, tmp_path, deixis) -> None:
    folder = shared_data / "demo_photos/images"
    code, _, err = deixis(grid([folder / "supervision_4.jpg", folder / "sam_dog.jpg"], segmenter, tmp_path / "out"))
    assert code == 0, err
    read_both(tmp_path / "out")


def test_a_video_is_annotated_frame_by_frame_and_tracked(segmenter, tiny_model, tmp_path, deixis, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)
    clip = video(tmp_path / "gate.mp4", np.repeat(moving_bar(1), 5, axis=0), fps=10)
    more = ("--detector", tiny_model, "--names", "star", "fish", "--threshold", "0", "--min-fit", "0")
    code, _, err = deixis([*grid([clip], segmenter, tmp_path / "out", "--track", "--frame-step", "2"), *more])
    assert code == 0, err
    read_both(tmp_path / "out")
    written = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [f"frames/gate/{n:06}.jpg" for n in (0, 2, 4)]
    ids = {image["id"]: [] for image in written["images"]}
    for found in written["annotations"]:
        ids[found["image_id"]].append(found["track_id"])
    assert list(ids.values()) == [[None, None], [1, 2], [1, 2]] or list(ids.values()) == [[None, None], [2, 1], [2, 1]]
    drawn = open_frames(tmp_path / "out/videos/gate.mp4")
    assert (len(drawn), drawn.rate) == (3, 5)
    assert len((tmp_path / "out/mot/gate.txt").read_text().splitlines()) == 4
    assert (tmp_path / "out/mot/labels.txt").read_text() == "star\nfish\n"


def test_a_camera_is_annotated_as_long_as_it_sends(segmenter, tiny_model, tmp_path, deixis, monkeypatch) -> None:
    """What came before it breaks off is kept; the same command adds frames, another camera is not mixed in."""
    monkeypatch.setitem(sys.modules, "trackers", stand_in_trackers)
    out = tmp_path / "out"

    def words(address: str, *more: str) -> list[str]:
        names = ("--detector", str(tiny_model), "--names", "star", "--threshold", "0", "--min-fit", "0")
        return [*grid([], segmenter, out, "--track", "--stream", address), *names, *more]

    def frames() -> Iterator[np.ndarray]:
        return iter(np.repeat(moving_bar(1), 3, axis=0))

    with network_camera(frames) as address:
        code, said, err = deixis(words(address))
        assert code == 0, err
        assert "in 3 images" in said
        assert "broke off after 3 frames" in err
        code, said, err = deixis(words(address, "--max-frames", "2", "--frame-step", "2"))
        assert (code, "warning" in err) == (0, False), err
        with network_camera(frames) as other:
            code, _, err = deixis(words(other.replace("/video", "/other")))
            assert (code, "choose another --output" in err, err.count("\n")) == (2, True, 1), err
    read_both(out)
    written = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [f"frames/video/{n:06}.jpg" for n in range(5)]
    assert [found["track_id"] is None for found in written["annotations"]].count(False) >= 4
    assert len(open_frames(out / "videos/video.mp4")) == 5
    code, _, err = deixis(words(address))
    assert (code, "cannot be opened (Connection refused)" in err, err.count("\n")) == (2, True, 1), err
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 5


def test_an_interrupted_camera_ends_with_what_it_sent(segmenter, tmp_path, deixis, monkeypatch) -> None:
    work, seen = Annotator.annotate_one, []

    def interrupted(self, image, names):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return work(self, image, names)

    monkeypatch.setattr(Annotator, "annotate_one", interrupted)
    with network_camera(lambda: cycle(moving_bar(2))) as address:
        code, said, err = deixis([*grid([], segmenter, tmp_path / "out"), "--stream", address])
    assert (code, "in 2 images" in said) == (0, True), err
    read_both(tmp_path / "out")


def test_a_camera_takes_the_place_of_images_on_this_machine(photos, deixis) -> None:
    for more, told in (
        (("--images", str(photos), "--stream", "camera:0"), "--stream stands in place of --images"),
        (("--images", str(photos), "--max-frames", "3"), "--max-frames is for --stream"),
        (("--stream", "camera:0", "--engine", "ray"), "--stream: expected --engine local for videos"),
        (("--images", str(photos), "--track", "--engine", "ray"), "--track: expected --engine local for videos"),
    ):
        code, _, err = deixis(["annotate", "--segmenter", "x", *more])
        assert (code, told in err) == (2, True), err
