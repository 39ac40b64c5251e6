"""More objects than evaluation counts or the model can find: told aloud, and `--max-detections` lifts the ceiling."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import train_arguments, write_coco

from deixis.data.formats import read_dataset
from deixis.evaluation.coco_map import evaluate_detections
from deixis.records import Dataset
from deixis.results.detections import Detections


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """Two images: one with 130 objects in a grid, one with three."""
    folder = tmp_path_factory.mktemp("crowded")
    boxes = [[4 * (i % 13), 4 * (i // 13), 3, 3] for i in range(130)]
    rows = [(1, box) for box in boxes] + [(0, box) for box in boxes[:3]]
    annotations = [
        {"id": n, "image_id": image, "category_id": 1, "bbox": box, "area": 9, "iscrowd": 0}
        for n, (image, box) in enumerate(rows)
    ]
    return write_coco(folder, count=2, annotations=annotations)


def perfect(dataset: Dataset) -> list[Detections]:
    """Every box, and nothing else."""
    found = []
    for sample in (dataset[i] for i in range(len(dataset))):
        boxes = np.asarray(sample.instances.boxes_xyxy_px, np.float64)
        scores = np.linspace(1, 0.5, len(boxes))
        ids = np.asarray(sample.instances.class_ids)
        found.append(Detections(boxes, scores, ids, sample.vocabulary.names, image_id=sample.image_id))
    return found


def test_perfect_boxes_reach_one_where_all_of_them_count(crowded) -> None:
    dataset = read_dataset(crowded, crowded.parent / "images")
    truth = [dataset[i] for i in range(len(dataset))]
    usual = evaluate_detections(truth, perfect(dataset), dataset.vocabulary)
    assert usual.AP < 0.8
    assert usual.max_detections == 100
    whole = evaluate_detections(truth, perfect(dataset), dataset.vocabulary, max_detections=130)
    assert (whole.AP, whole.AR100, whole.max_detections) == (pytest.approx(1), pytest.approx(1), 130)
    few = evaluate_detections(truth, perfect(dataset), dataset.vocabulary, max_detections=10)
    assert pytest.approx((10 + 3) / 133) == few.AR100


def test_perfect_boxes_of_a_real_image_of_trees(shared_data) -> None:
    dataset = read_dataset(shared_data / "tree_crowns_aerial_voc")
    truth = [dataset[i] for i in range(len(dataset))]
    usual = evaluate_detections(truth, perfect(dataset), dataset.vocabulary)
    assert usual.per_class["Tree"] == pytest.approx(0.475, abs=1e-3)  # of 279
    assert pytest.approx(1) == evaluate_detections(truth, perfect(dataset), dataset.vocabulary, max_detections=300).AP


@pytest.fixture
def told(deixis):
    """The command: a function from arguments to (what it printed, what it warned of). It has to succeed."""

    def run(arguments) -> tuple[str, str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            code, out, err = deixis(arguments)
        assert code == 0, err
        return out, "\n".join(str(warning.message) for warning in found)

    return run


def test_eval_tells_and_takes_the_limit(told, deixis, tiny_model, crowded, tmp_path) -> None:
    command = ["detect", "eval", "--model", tiny_model, "--data", crowded, "--images", crowded.parent / "images"]
    out, warned = told(command)
    assert "1 of 2 images have more objects than the 100 detections" in warned
    assert "give --max-detections 130" in warned
    assert "1 of 2 images have more objects than the model's 10 queries" in warned
    assert "AR100" in out
    out, warned = told([*command, "--max-detections", "130", "--output", tmp_path])
    assert "--max-detections" not in warned
    assert "10 queries" in warned
    assert "AR130" in out
    assert json.loads((tmp_path / "metrics.json").read_text())["max_detections"] == 130
    code, _, err = deixis([*command, "--max-detections", "0"])
    assert code == 2
    assert "--max-detections" in err


def test_train_tells_of_every_part_of_its_data(told, tiny_model, crowded, tmp_path) -> None:
    folder = str(crowded.parent / "images")
    more = ("--data", str(crowded), "--images", folder, "--val-data", str(crowded), "--val-images", folder)
    _, warned = told([*train_arguments(tiny_model, tmp_path, *more), "--dry-run"])
    assert warned.count("10 queries") == 2  # training and validation
    assert warned.count("give --max-detections 130") == 1  # validation alone is measured
    run = ("--max-detections", "130", "--epochs", "1", "--max-steps", "1", "--no-baseline")
    _, warned = told(train_arguments(tiny_model, tmp_path, *more, *run))
    assert "--max-detections" not in warned
    result = json.loads((tmp_path / "detector/result.json").read_text())
    assert result["best"]["validation"]["max_detections"] == 130
    assert "at most 130 detections per image count" in (tmp_path / "detector/report.html").read_text()


def test_generated_scenes_are_not_drawn_for_it(deixis, tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("deixis.recipes.detect.data.facts.record_of", lambda *_: pytest.fail("drawn"))
    code, _, err = deixis([*train_arguments(tiny_model, tmp_path), "--dry-run"])
    assert code == 0, err
