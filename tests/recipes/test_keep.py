"""Training that keeps old names: old pictures shown again, and names with token embeddings of their own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import TRAIN_SCENES, VAL_SCENES, records, train_arguments

from deixis.data.formats import read_dataset
from deixis.errors import OptionError
from deixis.models.checkpoints import with_learned_names
from deixis.models.edits.closed_form import edited_layers
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.text import learned_names
from deixis.options.detect_train import DetectData, DetectTrainOptions
from deixis.recipes.detect.data.feed import mixed
from deixis.recipes.detect.learning.keep import labels_of
from deixis.records import Instances, Sample, Vocabulary
from deixis.results.detections import Detections

pytestmark = pytest.mark.slow  # whole runs

OLD_SCENES = "scenes:split=unseen_pairs,count=5,seed=3"
OPTIONS = DetectTrainOptions(data=(TRAIN_SCENES,), val_data=VAL_SCENES)


def test_prompt_tuning_changes_the_rows_of_its_names_alone(deixis, tiny_model, tmp_path):
    more = ("--keep", "prompt", "--max-steps", "2", "--no-report", "--forgetting-data", OLD_SCENES)
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more, "--forgetting-sweep", "0.5"))
    assert code == 0, err
    base = load_grounding_dino(tiny_model).model.state_dict()
    bundle = load_grounding_dino(tmp_path / "detector" / "teachers" / "grounding_dino")
    assert set(learned_names(bundle.tokenizer)) == set(bundle.record.names) >= {"gear", "lightning bolt"}
    changed = [name for name, tensor in bundle.model.state_dict().items() if not same(tensor, base[name])]
    assert changed == []
    first = with_learned_names(load_grounding_dino(tiny_model), bundle.record.names).model
    own = list(learned_names(bundle.tokenizer).values())
    before, after = (one.model.text_backbone.get_input_embeddings().weight[own] for one in (first, bundle.model))
    assert ((after - before).abs().amax(1) > 1e-4).all(), "every name has learnt"
    more = ("--resume", "--keep", "prompt", "--max-steps", "2", "--no-report", "--forgetting-data", OLD_SCENES)
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err


def same(tensor, base):
    """Equal, apart from rows that the base lacks."""
    return torch.equal(tensor[: len(base)] if tensor.ndim else tensor, base)


def test_old_pictures_are_a_share_of_an_epoch():
    new, old = read_dataset(TRAIN_SCENES), read_dataset(OLD_SCENES)
    shown = mixed(new, DetectData(), 0, replayed=old, replay_share=0.25)
    assert len(shown) == 16
    for epoch in (0, 1):
        rows = shown.rows(epoch)
        assert sorted(rows[rows < 12]) == list(range(12)), "every new picture once, as without old ones"
        assert (rows >= 12).sum() == 4
    assert mixed(new, DetectData(), 0, replayed=None, replay_share=0.25) is new


def test_confident_detections_become_objects_and_unsure_ones_nothing():
    vocabulary = Vocabulary(("cat", "dog", "cow"))
    sample = Sample(np.zeros((50, 50, 3), np.uint8), (50, 50), Instances.none(), vocabulary)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 40, 45], [5, 5, 9, 9.0]])
    found = Detections(boxes, np.array([0.9, 0.8, 0.4, 0.1]), np.array([0, 0, 1, 2]), vocabulary.names)
    labelled = labels_of(sample, found)
    assert labelled.instances.boxes_xyxy_px.tolist() == [[0, 0, 10, 10]]
    assert labelled.not_exhaustive_class_ids == {1}
    assert labelled.known_absent_class_ids == {2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"keep": "replay"}, "--replay-data"),
        ({"replay_data": "x"}, "--keep replay"),
        ({"keep": "prompt", "lora": True}, "--lora"),
        ({"keep": "edit", "lora": True}, "--keep edit"),
        ({"keep": "replay", "replay_data": "x", "replay_share": 1.0}, "--replay-share"),
    ],
)
def test_options_that_do_not_belong_together(changes, told):
    with pytest.raises(OptionError, match=told):
        replace(OPTIONS, model="builtin", **changes).check()


def test_a_run_with_old_pictures_that_the_model_labels(deixis, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("deixis.recipes.detect.learning.keep.CONFIDENT", 0.0)
    from PIL import Image

    (tmp_path / "old").mkdir()
    for number in range(2):
        Image.fromarray(np.full((64, 64, 3), 80 * number, np.uint8)).save(tmp_path / "old" / f"{number}.png")
    more = ("--keep", "replay", "--replay-data", str(tmp_path / "old"), "--replay-names", "star", "--max-steps", "2")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path / "runs", *more, "--no-report", "--no-baseline"))
    assert code == 0, err
    assert (
        "star" not in load_grounding_dino(tmp_path / "runs" / "detector" / "teachers" / "grounding_dino").record.names
    )


def test_a_run_that_edits_can_be_undone(deixis, tiny_model, tmp_path):
    more = ("--keep", "edit", "--max-steps", "2", "--learning-rate", "1e-2", "--no-report")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    run = tmp_path / "detector"
    teacher = run / "teachers" / "grounding_dino"
    base, best, kept = (
        load_grounding_dino(path).model.state_dict() for path in (tiny_model, run / "checkpoints" / "best", teacher)
    )
    layers = [f"{name}.weight" for name in edited_layers(load_grounding_dino(tiny_model).model)]
    for name in base:
        assert torch.equal(kept[name], base[name]) == (name not in layers), name
    gone = [float((kept[name] - base[name]).norm() / (best[name] - base[name]).norm()) for name in layers]
    assert all(0 < share < 1 for share in gone), "an edit goes a part of the way"
    (logged,) = records(run, "kept")
    result = json.loads((run / "result.json").read_text())
    assert result["best"]["validation"]["AP"] == logged["AP"]
    code, _, err = deixis(("model", "edit", "remove", run, "--tasks", "detector", "--output", tmp_path / "undone"))
    assert code == 0, err
    undone = load_grounding_dino(tmp_path / "undone").model.state_dict()
    assert all(torch.equal(undone[name], base[name]) for name in base)


def test_a_run_that_keeps_the_weights_in_between(deixis, tiny_model, tmp_path):
    more = ("--keep", "interpolate", "--keep-weight", "0.25", "--max-steps", "2", "--no-report", "--no-baseline")
    code, _, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    run = tmp_path / "detector"
    base, best, kept = (
        load_grounding_dino(path).model.state_dict()
        for path in (tiny_model, run / "checkpoints" / "best", run / "teachers" / "grounding_dino")
    )
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, torch.lerp(base[name], best[name], 0.25))
    assert any(not torch.equal(kept[name], base[name]) for name in base)
