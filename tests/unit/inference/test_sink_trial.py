"""Whether attention sinks are kept: they must raise what decides, and AP must hardly fall."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_detectors import bert_tokenizer, small_config

from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector
from deixis.inference.detect.sinks import SinkTrial, try_sinks
from deixis.models.checkpoints import load_any_detector, save_detector
from deixis.models.grounding_dino import init_bundle
from deixis.models.model_record import read_record
from deixis.recipes.detect.measure import choose_sinks
from deixis.recipes.run.result import keep_sinks
from deixis.records import Instances, Sample, SampleList, Vocabulary

VOCABULARY = Vocabulary(("cat", "dog"))


def metrics(at_rate: float, ap: float = 0.5, images: int = 64) -> DetectionMetrics:
    return DetectionMetrics(ap, 0, 0, 0, 0, 0, 0, {}, images, 20, AP_at_FPR_bg=at_rate, threshold=0.4)


@pytest.mark.parametrize(
    ("before", "after", "helps"),
    [
        (metrics(0.1), metrics(0.3), True),
        (metrics(0.1), metrics(0.104), False),
        (metrics(0.1), metrics(0.3, ap=0.48), False),
        (metrics(0.3), metrics(0.1), False),
        (metrics(math.nan), metrics(math.nan, ap=0.6), True),
        (metrics(math.nan), metrics(math.nan), False),
    ],
)
def test_sinks_are_kept_only_if_they_help(before, after, helps):
    trial = SinkTrial(8, "mean", {"none": before}, before, after)
    assert trial.helps == helps
    assert trial.chosen is (after if helps else before)
    assert trial.facts()["count"] == 8 * helps
    json.dumps(trial.facts(), allow_nan=False)
    assert ("kept" in trial.lines()[-1]) == helps


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return Detector(init_bundle(small_config(), bert_tokenizer(), (64, 96)))


def dataset(count: int) -> SampleList:
    one = Sample(Path("a.jpg"), (40, 60), Instances.build([[1.0, 2, 30, 9]], [0]), VOCABULARY)
    return SampleList((one,) * count, VOCABULARY)


@pytest.mark.parametrize(("images", "few"), [(10, 10), (200, 64)])
def test_the_kind_is_chosen_on_few_images_and_judged_on_all(detector, images, few):
    seen = []

    def measure(one, data):
        seen.append((None if one.sinks is None else len(one.sinks), len(data)))
        kinds = {None: 0.1}
        vector = None if one.sinks is None else tuple(one.sinks[0, :2].tolist())
        return metrics(kinds.setdefault(vector, 0.2), images=len(data))

    trial, sinks = choose_sinks(detector, dataset(images), 8, measure=measure)
    assert seen[:4] == [(None, few), (8, few), (8, few), (8, few)]
    assert seen[4:] == ([] if images == few else [(None, images), (8, images)])
    assert trial.helps
    assert len(sinks) == 8
    assert detector.sinks is None, "the detector that is tried stays as it is"


def test_the_choice_is_kept_with_the_model(detector, tmp_path):
    trial = try_sinks(
        detector, dataset(3), dataset(3), 4, measure=lambda one, _: metrics(0.1 + (one.sinks is not None))
    )
    save_detector(replace(detector.bundle), tmp_path)
    keep_sinks(tmp_path, trial, torch.ones(4, 64))
    record = read_record(tmp_path)
    assert (record.sinks["count"], record.sinks["AP_at_FPR_bg"]) == (4, [0.1, 1.1])
    assert record.thresholds == {"score": 0.4}
    assert len(load_any_detector(tmp_path).sinks) == 4
    worse = try_sinks(detector, dataset(3), dataset(3), 4, measure=lambda one, _: metrics(0.1))
    keep_sinks(tmp_path, worse, None)
    assert (read_record(tmp_path).sinks["count"], load_any_detector(tmp_path).sinks) == (0, None)
