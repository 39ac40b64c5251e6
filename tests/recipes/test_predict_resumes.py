"""`deixis detect predict` and `deixis refer predict` write as they go, resume, and leave out what they cannot read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_refer_runs import write_tiny_segmenter
from tiny_runs import write_coco

from deixis.errors import DataError
from deixis.inference.detect.detector import Detector
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.model_record import update_record
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.recipes.detect import predict
from deixis.recipes.refer import predict as refer_predict
from deixis.results.segmentations import Segmentations


def options(tiny_model: object, images: Path, output: Path, threshold: float = 0.0) -> DetectPredictOptions:
    return DetectPredictOptions(
        model=str(tiny_model), images=(images,), names=("star",), threshold=threshold, batch_size=1, output=output
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_an_interrupted_run_resumes_and_ends_the_same(tiny_model, tmp_path, monkeypatch):
    images = write_coco(tmp_path / "data", count=4).parent / "images"
    predict.predict_detector(options(tiny_model, images, tmp_path / "whole"))
    write, seen = predict.write_picture, []

    def interrupted(path, pixels):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(path)
        write(path, pixels)

    monkeypatch.setattr(predict, "write_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_detector(options(tiny_model, images, tmp_path / "parts"))
    assert len(list((tmp_path / "parts/pictures").iterdir())) == 2
    monkeypatch.setattr(predict, "write_picture", write)
    asked: list[int] = []
    stream = Detector.stream
    monkeypatch.setattr(
        Detector, "stream", lambda self, left, *a, **b: asked.append(len(left)) or stream(self, left, *a, **b)
    )
    predict.predict_detector(options(tiny_model, images, tmp_path / "parts"))
    assert asked == [2]
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_other_settings_and_changed_images_are_done_again(tiny_model, tmp_path, monkeypatch):
    images = write_coco(tmp_path / "data", count=2).parent / "images"
    out = tmp_path / "out"
    monkeypatch.setattr(predict, "write_predictions", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict.predict_detector(options(tiny_model, images, out))
    monkeypatch.undo()
    asked: list[int] = []
    stream = Detector.stream
    monkeypatch.setattr(
        Detector, "stream", lambda self, left, *a, **b: asked.append(len(left)) or stream(self, left, *a, **b)
    )
    first = sorted(images.iterdir())[0]
    first.write_bytes(sorted(images.iterdir())[1].read_bytes())
    predict.predict_detector(options(tiny_model, images, out, threshold=0.0))
    predict.predict_detector(options(tiny_model, images, out, threshold=0.9))
    assert asked == [1, 2]


def test_other_thresholds_of_the_model_are_other_settings(tiny_model, tmp_path, monkeypatch):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    images = write_coco(tmp_path / "data", count=2).parent / "images"
    asked = replace(options(model, images, tmp_path / "out"), threshold=None)
    monkeypatch.setattr(predict, "write_predictions", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict.predict_detector(asked)
    monkeypatch.undo()
    update_record(model, names=("star",), thresholds={"score": 0.01})
    found = predict.predict_detector(asked)
    assert [one.above(0.01) == one for one in found] == [True, True]
    assert found == predict.predict_detector(replace(asked, threshold=0.01, output=tmp_path / "given"))
    assert any(len(one) != len(one.above(0.3)) for one in found)  # none was kept from the run at 0.3


def test_unreadable_images_are_left_out_and_named(tiny_model, tmp_path, capsys):
    images = write_coco(tmp_path / "data", count=2).parent / "images"
    broken = images / "aaa.jpg"
    broken.write_bytes(b"no image")
    found = predict.predict_detector(options(tiny_model, images, tmp_path / "out"))
    assert [one.image_id for one in found] == [0, 1]
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) == 2
    assert "left out" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"none of 1 images can be read; the first: .*aaa\.jpg"):
        predict.predict_detector(options(tiny_model, broken, tmp_path / "none"))


def test_segmenters_resume_too(tmp_path, monkeypatch, capsys):
    model = write_tiny_segmenter(tmp_path / "model", seed=3)
    images = write_coco(tmp_path / "data", count=3).parent / "images"

    def run(output: Path, *phrases: str) -> list[Segmentations]:
        asked = ReferPredictOptions(
            model=str(model), images=(images,), phrases=phrases, generate=False, max_tiles=1, output=output
        )
        return refer_predict.predict_segmenter(asked)

    whole = run(tmp_path / "whole", "a star", "a fish")
    write, seen = refer_predict.write_masks, []

    def interrupted(folder, found, image, **options):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(image)
        write(folder, found, image, **options)

    monkeypatch.setattr(refer_predict, "write_masks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", "a star", "a fish")
    assert len(list((tmp_path / "parts/pictures").iterdir())) == 2
    monkeypatch.setattr(refer_predict, "write_masks", write)
    asked: list[int] = []
    stream = Segmenter.stream
    monkeypatch.setattr(
        Segmenter, "stream", lambda self, left, *a, **b: asked.append(len(left)) or stream(self, left, *a, **b)
    )
    capsys.readouterr()
    assert run(tmp_path / "parts", "a star", "a fish") == whole
    assert "resuming: 2 of 3 images are done" in capsys.readouterr().out
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    lines = '{"made_by": {}}\n{"file": "x", "stamp": [], "answers": [{"text": 3}]}\n'
    (tmp_path / "other/segmentations.jsonl").write_text(lines)
    run(tmp_path / "other", "a star")
    assert asked == [1, 3]
