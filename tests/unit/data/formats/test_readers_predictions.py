"""Predictions as annotations: `predictions.json`, and COCO results with the annotations that they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deixis.cli.main import run
from deixis.data.findings import Findings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.table import WRITTEN
from deixis.data.sets.results import with_results
from deixis.errors import DataError, OptionError
from deixis.inference.outputs.detections import coco_results, write_predictions
from deixis.records import Detections

RECOGNISED = {
    "predictions": {"predictions.json": '[{"objects": [{"box_xyxy_px": [0, 0, 1, 1]}]}]', "coco_results.json": "[]"},
}
NAMES = ("cat", "red bird", "größe")


def detections(number: int) -> Detections:
    """Three in each image: scores 0.9, 0.6 and 0.3."""
    boxes = np.array([[1.0, 2, 11, 12], [0, 0, 5, 5], [2, 2, 9, 14]]) + number
    return Detections(boxes, np.array([0.9, 0.6, 0.3]), np.array([0, 2, 1]), NAMES, number, (30, 40))


def example(folder: Path) -> None:
    """Two images with detections, as `detect predict` writes them."""
    files: list[str | Path] = []
    for number in (1, 2):
        Image.new("RGB", (40, 30), (90 * number, 0, 0)).save(folder / f"{number}.png")
        files.append(folder / f"{number}.png")
    write_predictions(folder, [detections(1), detections(2)], files, model="runs/a/teacher")


def test_detections_are_read_with_scores_and_model(tmp_path: Path) -> None:
    example(tmp_path)
    for place in (tmp_path, tmp_path / "predictions.json", tmp_path / "coco_results.json"):
        assert format_of(place) == "predictions"
        read = read_dataset(place)
        assert read.vocabulary.names == ("cat", "größe", "red bird")
        assert [read[i].image_id for i in range(2)] == [1, 2]
        assert read[1].model_version == "runs/a/teacher"
        assert read[1].size_hw == (30, 40)
        found = read[1].instances
        assert found.scores is not None
        assert found.scores.tolist() == [0.9, 0.6, 0.3]
        np.testing.assert_allclose(found.boxes_xyxy_px, detections(2).boxes_xyxy_px)
        assert [read.vocabulary.names[i] for i in found.class_ids] == ["cat", "größe", "red bird"]


@pytest.mark.parametrize("format", WRITTEN)
def test_confident_detections_become_annotations_of_every_format(format: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "found").mkdir()
    example(tmp_path / "found")
    place = ["--data", str(tmp_path / "found" / "predictions.json"), "--to", format, "--output", str(tmp_path / "out")]
    assert run(["data", "convert", *place, "--threshold", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "left out 2 objects that score below 0.5; 4 are left" in said
    assert ("scores of 4 objects" in said) == (not WRITTEN[format].holds.scores)
    assert ("model that found the objects: runs/a/teacher" in said) == (not WRITTEN[format].holds.model_version)
    read = read_dataset(tmp_path / "out")
    assert len(read) == 2
    for index in range(2):
        labels = sorted(read[index].vocabulary.names[i] for i in read[index].instances.class_ids)
        assert labels == ["cat", "größe"]
        if WRITTEN[format].holds.scores:
            assert sorted(read[index].instances.scores.tolist()) == pytest.approx([0.6, 0.9])
        if WRITTEN[format].holds.model_version:
            assert read[index].model_version == "runs/a/teacher"


def test_results_take_images_and_classes_from_the_annotations(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "found").mkdir()
    example(tmp_path / "found")
    run(["data", "convert", "--data", str(tmp_path / "found"), "--to", "coco", "--output", str(tmp_path / "truth")])
    truth = read_dataset(tmp_path / "truth")
    results = tmp_path / "coco_results.json"
    results.write_text(json.dumps(coco_results([detections(1), detections(2)], truth.vocabulary)))
    with pytest.raises(DataError, match=r"COCO results .detections.; give the annotations, or convert them with"):
        read_dataset(results)
    asked = ["--annotations", str(tmp_path / "truth"), "--threshold", "0.7", "--output", str(tmp_path / "out")]
    run(["data", "convert", "--data", str(results), *asked])
    written = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [(row["image_id"], row["score"]) for row in written["annotations"]] == [(1, 0.9), (2, 0.9)]


def test_results_of_evaluators_that_name_files_and_have_masks(tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    example(tmp_path / "found")
    truth = read_dataset(tmp_path / "found")
    rows = [
        {"image_id": "2", "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps(rows))
    read = with_results(results, truth)
    assert len(read[0].instances) == 0
    assert read[1].instances.masks_rle is not None
    for image_id in (2, 2.0, " 2", "2.0", "2.png"):
        results.write_text(json.dumps([rows[0] | {"image_id": image_id, "category_id": "1.0"}]))
        again = with_results(results, truth)
        assert [len(again[index].instances) for index in range(2)] == [0, 1], image_id
    for change, message in (
        ({"image_id": True}, "image_id True, which"),
        ({"image_id": None}, "image_id None, which"),
        ({"image_id": 7}, "image_id 7, which the annotations do not list"),
        ({"category_id": 9}, "category_id 9, which"),
        ({"bbox": [1, 2]}, r"bbox \[1, 2\], not four"),
        ({"score": None}, "score None, not a number"),
        ({"segmentation": 5}, "segmentation is neither polygons nor RLE"),
    ):
        results.write_text(json.dumps([rows[0] | change]))
        with pytest.raises(DataError, match=message):
            with_results(results, truth)
    results.write_text("{}")
    with pytest.raises(DataError, match=r"expected a list of COCO results"):
        with_results(results, truth)


def test_a_threshold_needs_scores(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--threshold: the objects of the data have no scores"):
        run(["data", "convert", "--data", "scenes:split=demo_train,count=2,seed=1", "--dry-run", "--threshold", "0.5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": None}, "image 1: expected an image with its file, got None"),
        ({"width": -1}, "image 1: image size"),
        ({"objects": 5}, "image 1: expected a list of objects, got 5"),
        ({"objects": [{"label": "a", "score": 0.5}]}, "object 1: expected a label, a score and four finite numbers"),
        ({"file": "gone.png"}, "image files not found, the first is 'gone.png'"),
    ],
)
def test_an_entry_that_is_none(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    example(tmp_path)
    file = tmp_path / "predictions.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps([content[0] | change, content[1]]))
    with pytest.raises(DataError, match=message):
        read_dataset(file)
    findings = Findings()
    assert len(read_dataset(file, findings=findings)) == 1
    assert findings.found
