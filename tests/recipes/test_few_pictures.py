"""Training on few or incomplete annotations: unjudged classes, balanced classes, augmentation presets."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_runs import TRAIN_SCENES, VAL_SCENES, records, train_arguments

from deixis.data.formats import read_dataset
from deixis.errors import OptionError
from deixis.options.detect_train import DetectData, DetectTrainOptions
from deixis.recipes.detect.data import mixed
from deixis.recipes.detect.learning.missing import PartlyJudged, missing_classes
from deixis.records import Instances, Sample, Vocabulary
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


def test_an_unjudged_class_is_no_negative():
    data = read_dataset(VAL_SCENES)
    shown = PartlyJudged(data, (frozenset({2}), *([frozenset()] * 3)))
    assert not shown[0].judges(2)
    assert shown[1].judges(2)
    assert (len(shown), shown.vocabulary) == (len(data), data.vocabulary)


def test_runs_say_how_many_images_are_incomplete(deixis, tiny_model, tmp_path):
    more = ("--repair-missing", "--repair-score", "0", "--augment", "strong", "--balance-classes", "0.5")
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
