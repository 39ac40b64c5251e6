"""Training on few or incomplete annotations: unjudged classes, balanced classes, augmentation presets."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import TRAIN_SCENES, VAL_SCENES, records, train_arguments, write_coco, write_tiny_model

from deixis.data.formats import read_dataset
from deixis.errors import OptionError
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.models.grounding_dino import load_grounding_dino
from deixis.options.detect_train import DetectData, DetectTrainOptions
from deixis.recipes.detect.data.feed import mixed
from deixis.recipes.detect.learning.missing import PartlyJudged, missing_classes, repaired
from deixis.recipes.detect.learning.seeds import keep_of_seeds
from deixis.recipes.detect.measure import DetectorMeasure
from deixis.recipes.detect.train import FinetuneResult
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.reporting.outcome import Measured, Outcome
from deixis.results.detections import Detections

NAMES = Vocabulary(("cat", "dog", "cow"))


def sample(**changes):
    pixels = np.zeros((50, 50, 3), np.uint8)
    return Sample(pixels, (50, 50), Instances.build([[0, 0, 20, 10]], [0]), NAMES, **changes)


def test_a_confident_detection_on_no_object_leaves_its_class_unjudged():
    boxes = np.array([[0, 0, 20, 11], [0, 0, 20, 9], [20, 20, 40, 45], [5, 5, 9, 9.0]])
    found = Detections(boxes, np.array([0.9, 0.8, 0.6, 0.3]), np.array([0, 1, 1, 2]), NAMES.names)
    assert missing_classes(sample(), found, 0.5) == {1}, "the first two lie on the annotated object"
    assert missing_classes(sample(), found, 0.2) == {1, 2}
    assert missing_classes(sample(), found[found.scores > 1], 0.5) == frozenset()
    assert missing_classes(sample(absent_class_ids=frozenset({1})), found, 0.5) == frozenset(), "somebody looked"
    empty = sample().evolve(instances=Instances.none())
    assert missing_classes(empty, found, 0.5) == {0, 1}


def test_what_a_model_finds_becomes_an_object_where_it_finds_the_annotated_ones(monkeypatch):
    """Of cats it finds the annotated one, of dogs none: another cat becomes an object, another dog is not judged."""
    pixels = np.zeros((50, 50, 3), np.uint8)
    instances = Instances.build([[0, 0, 20, 10], [30, 0, 50, 10]], [0, 1])
    data = SampleList((Sample(pixels, (50, 50), instances, NAMES),) * 2, NAMES)
    boxes = np.array([[0, 0, 20, 11], [20, 20, 40, 45], [20, 20, 40, 46], [0, 30, 10, 50], [5, 5, 9, 9.0]])
    found = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6, 0.1]), np.array([0, 0, 0, 1, 2]), NAMES.names)

    class Model:
        def predict_dataset(self, dataset):
            return [found] * len(dataset)

    monkeypatch.setattr("deixis.recipes.detect.learning.missing.load_detector", lambda model: Model())
    shown, line = repaired(data, "a model", as_objects=True)
    sample = shown[0]
    assert sample.instances.boxes_xyxy_px.tolist() == [[0, 0, 20, 10], [30, 0, 50, 10], [20, 20, 40, 45]]
    assert sample.instances.class_ids.tolist() == [0, 1, 0]
    assert sample.not_exhaustive_class_ids == {1}
    assert "2 more became objects" in line
    shown, line = repaired(data, "a model")
    assert (len(shown[0].instances), shown[0].not_exhaustive_class_ids) == (2, {0, 1})
    assert "became" not in line


def test_an_unjudged_class_is_no_negative():
    data = read_dataset(VAL_SCENES)
    shown = PartlyJudged(data, (frozenset({2}), *([frozenset()] * 3)))
    assert not shown[0].judges(2)
    assert shown[1].judges(2)
    assert (len(shown), shown.vocabulary) == (len(data), data.vocabulary)


def test_runs_say_how_many_images_are_incomplete(deixis, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("deixis.recipes.detect.learning.missing.SURE", 0.0)
    more = ("--repair-missing", "--augment", "strong", "--balance-classes", "0.5")
    arguments = train_arguments(tiny_model, tmp_path, *more, "--max-steps", "2", "--no-report", "--no-baseline")
    code, out, err = deixis(arguments)
    assert code == 0, err
    assert "--repair-missing: on 12 of 12 training images" in out


def test_balanced_classes_repeat_images_of_rare_ones():
    data = read_dataset(TRAIN_SCENES)
    shown = mixed(data, DetectData(balance_classes=1.0), 0, replayed=None, replay_share=0.25)
    counts = np.bincount(shown.rows(0), minlength=len(data))
    assert counts.min() >= 1
    assert len(shown) == counts.sum() > len(data)
    with pytest.raises(OptionError, match="--balance-classes"):
        DetectTrainOptions(data=("a", "b"), model="builtin", balance_classes=0.1, data_weights=(1, 2)).check()


def test_the_few_recipe_trains_the_encoder_from_the_middle_of_the_run(deixis, tiny_model, tmp_path):
    more = ("--recipe", "few", "--max-steps", "4", "--no-report", "--no-baseline")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    steps = records(tmp_path / "detector", "step")
    assert [record["lr"]["encoder"] > 0 for record in steps] == [False, False, True, True]
    assert all(record["lr"]["decoder"] > 0 for record in steps)


def test_without_validation_data_all_pictures_train_and_the_average_of_seeds_is_kept(deixis, tiny_model, tmp_path):
    labels = write_coco(tmp_path, count=4)
    run = ("--data", str(labels), "--images", str(tmp_path / "images"), "--model", str(tiny_model), "--no-hold-out")
    where = ("--output", str(tmp_path / "runs"), "--experiment-name", "all", "--workers", "0", "--gpus", "0")
    more = ("--recipe", "few", "--epochs", "2", "--max-steps", "2", "--seeds", "2", "--no-report", "--no-baseline")
    code, out, err = deixis(["detect", "train", *run, *where, *more])
    assert code == 0, err
    assert "4 training and 4 validation images" in out
    assert "nothing is held out" in out
    folder = tmp_path / "runs" / "all"
    assert [record["epoch"] for record in records(folder / "seed_0", "evaluation")] == [1], "at the end alone"
    kept, *seeds = (
        load_grounding_dino(path / "teachers" / "grounding_dino")
        for path in (folder, folder / "seed_0", folder / "seed_1")
    )
    states = [one.model.state_dict() for one in (kept, *seeds)]
    for name, tensor in states[0].items():
        wanted = (states[1][name] + states[2][name]) / 2 if tensor.is_floating_point() else tensor
        torch.testing.assert_close(tensor, wanted, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(states[1][name], states[2][name]) for name in states[0])
    assert set(kept.record.metrics) == {"training images"}
    assert not kept.record.thresholds
    assert "say nothing of others" in (folder / "teachers" / "grounding_dino" / "README.md").read_text()
    code, _, err = deixis(["detect", "train", *run, "--sinks", "8"])
    assert (code, "--no-hold-out" in err) == (2, True)


def test_the_better_of_average_and_best_seed_is_kept(tiny_model, tmp_path, monkeypatch):
    folders = {seed: write_tiny_model(tmp_path / f"seed_{seed}" / "grounding_dino", seed=seed) for seed in (0, 1)}
    metrics = DetectionMetrics(*[0.5] * 7, {}, 4, 4)
    monkeypatch.setattr(DetectorMeasure, "__call__", lambda self, detector, dataset: metrics)
    options = DetectTrainOptions(data=(TRAIN_SCENES,), val_data=VAL_SCENES, model=str(tiny_model), gpus=0)

    def kept(of_second):
        runs = {
            seed: FinetuneResult(tmp_path, folder, None, None, None, outcome_of(score))
            for (seed, folder), score in zip(folders.items(), (0.4, of_second), strict=True)
        }
        line = keep_of_seeds(options, tmp_path / f"{of_second}", runs)
        return line, load_grounding_dino(tmp_path / f"{of_second}" / "teachers" / "grounding_dino").model.state_dict()

    second = load_grounding_dino(folders[1]).model.state_dict()
    line, state = kept(0.6)
    assert "kept    seed 1" in line
    assert all(torch.equal(state[name], second[name]) for name in state)
    line, state = kept(0.45)
    assert "kept    the average of 2 seeds (AP of the average 0.5000, of the best seed, 1, 0.4500)" in line
    assert any(not torch.equal(state[name], second[name]) for name in state)


def outcome_of(score):
    measured = Measured(1, {"AP": score, "boxes": 1}, {})
    return Outcome("AP", None, measured, measured)


def test_a_dry_run_shows_augmented_pictures(deixis, tiny_model, tmp_path):
    page = tmp_path / "augmented.html"
    more = ("--dry-run", "--augment", "strong", "--show-augmented")
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, *more, str(page)))
    assert code == 0, err
    assert str(page) in out
    text = page.read_text()
    assert text.count("<img") == 24, "8 images in 3 epochs"
    assert "asked for" in text
    assert "width=device-width" in text
    assert len(set(re.findall(r'src="(data:[^"]+)"', text))) == 24, "each epoch shows an image differently"
    assert not (tmp_path / "detector").exists()
    page.write_text("my own page")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more, str(page)))
    assert (code, err.count("\n")) == (2, 1)
    assert page.read_text() == "my own page"
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more, str(tmp_path / "x.png")))
    assert code == 2
    assert "ends in .html" in err


def test_a_run_trains_a_parallel_decoder_and_keeps_it(deixis, tiny_model, tmp_path):
    more = ("--decoder", "parallel", "--max-steps", "1", "--denoising-queries", "2", "--no-report", "--no-baseline")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    assert load_grounding_dino(tmp_path / "detector" / "teachers" / "grounding_dino").model.parallel
    assert not load_grounding_dino(tiny_model).model.parallel
    assert len(records(tmp_path / "detector", "step")) == 1
    options = DetectTrainOptions(data=(TRAIN_SCENES,), model="builtin", decoder="parallel")
    for changes in ({"lora": True}, {"keep": "prompt"}):
        with pytest.raises(OptionError, match="--decoder"):
            replace(options, **changes).check()
