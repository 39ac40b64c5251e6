"""What was forgotten is measured before, after and in between, on the weights it says."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_runs import TRAIN_SCENES, VAL_SCENES, records, train_arguments, write_coco

from deixis.data.formats import read_dataset
from deixis.errors import DataError, OptionError
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.models.adapters import add_lora, load_adapter, merge, save_adapter
from deixis.models.grounding_dino import load_grounding_dino, save_grounding_dino
from deixis.options.detect_train import DetectTrainOptions, Forgetting
from deixis.recipes.detect.forgetting import measure_forgetting, merge_command, read_forgetting_data

OLD_SCENES = "scenes:split=unseen_pairs,count=5,seed=3"
OPTIONS = DetectTrainOptions(data=(TRAIN_SCENES,), val_data=VAL_SCENES, forgetting_data=OLD_SCENES)


def metrics(ap: float) -> DetectionMetrics:
    return DetectionMetrics(ap, ap, ap, ap, ap, ap, ap, {}, images=1, boxes=1)


def tuned_folder(model: Path, folder: Path, lora: bool) -> Path:
    """The model with other weights, or an adapter on it that does something."""
    bundle = load_grounding_dino(model)
    if lora:
        add_lora(bundle.model, rank=2)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in bundle.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape))
    if lora:
        save_adapter(bundle.model, folder, base=str(model))
    else:
        save_grounding_dino(bundle, folder)
    return folder


@pytest.mark.parametrize("lora", [False, True])
def test_the_weights_measured_and_the_command_that_writes_them(lora, tiny_model, tmp_path, deixis):
    tuned = tuned_folder(tiny_model, tmp_path / "tuned", lora)
    options = replace(OPTIONS, model=str(tiny_model), lora=lora, forgetting_sweep=(0.25,), forgetting_max_images=3)
    data = read_forgetting_data(options.group(Forgetting), read_dataset(VAL_SCENES), "x")
    seen = []

    def measure(detector, dataset):
        seen.append((dataset, {name: tensor.clone() for name, tensor in detector.bundle.model.state_dict().items()}))
        return metrics(0.1 * len(seen))

    facts = measure_forgetting(
        str(tiny_model),
        tuned,
        tuned,
        data,
        is_adapter=lora,
        sweep=(0.25,),
        image_size=None,
        measure=measure,
        device=torch.device("cpu"),
    )
    assert [(p.weight, round(p.AP_new, 1), round(p.AP_old, 1)) for p in facts.points] == [
        *((0, 0.1, 0.2), (0.25, 0.3, 0.4), (1, 0.5, 0.6))
    ]
    assert [len(dataset) for dataset, _ in seen] == [3] * 6
    assert [dataset.vocabulary for dataset, _ in seen[:2]] == [data.new.vocabulary, data.old.vocabulary]
    base = load_grounding_dino(tiny_model).model.state_dict()
    assert all(torch.equal(tensor, base[name]) for name, tensor in seen[0][1].items())

    command = merge_command(tuned, 0.25, base=None if lora else str(tiny_model))
    code, _, err = deixis(shlex.split(command)[1:])
    assert code == 0, err
    written = load_grounding_dino(f"{tuned}_0.25").model.state_dict()
    assert all(torch.equal(written[name], tensor) for name, tensor in seen[2][1].items())
    if lora:  # a quarter of the way is the adapter at a quarter of its scale
        scaled = load_grounding_dino(tiny_model).model
        load_adapter(scaled, tuned)
        for module in scaled.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] *= 0.25
        merge(scaled)
        for name, tensor in scaled.state_dict().items():
            torch.testing.assert_close(written[name], tensor)
    assert any(not torch.equal(written[name], tensor) for name, tensor in seen[4][1].items())


def test_a_run_reports_it(deixis, tiny_model, tmp_path):
    more = ("--forgetting-data", OLD_SCENES, "--forgetting-sweep", "0.5", "--epochs", "1")
    code, out, err = deixis(train_arguments(tiny_model, tmp_path, *more))
    assert code == 0, err
    folder = tmp_path / "detector"
    found = json.loads((folder / "forgetting.json").read_text())
    assert [point["weight"] for point in found["points"]] == [0, 0.5, 1]
    assert (found["new_images"], found["old_images"], found["old_name"]) == (4, 5, OLD_SCENES)
    baseline, evaluation = records(folder, "baseline", "evaluation")
    assert found["points"][0]["AP_new"] == baseline["AP"]
    assert found["points"][2]["AP_new"] == evaluation["AP"]
    assert "AP old" in out
    assert 'id="forgetting"' in (folder / "report.html").read_text()


def test_old_data_that_cannot_be_used_is_told_before_training(deixis, tiny_model, tmp_path):
    labels = write_coco(tmp_path / "old")
    (tmp_path / "old" / "images" / "0.jpg").write_bytes(b"no picture")
    more = ("--forgetting-data", str(labels), "--forgetting-images", str(tmp_path / "old" / "images"))
    code, _, err = deixis(train_arguments(tiny_model, tmp_path / "runs", *more))
    assert (code, err.count("\n")) == (2, 1)
    assert "0.jpg" in err
    assert not (tmp_path / "runs" / "detector" / "metrics.jsonl").exists()


def test_old_data_without_an_object(tmp_path):
    labels = write_coco(tmp_path, annotations=[])
    options = replace(OPTIONS, forgetting_data=str(labels), forgetting_images=tmp_path / "images")
    with pytest.raises(DataError, match="no object in 6 of its images"):
        read_forgetting_data(options.group(Forgetting), read_dataset(VAL_SCENES), "x")


def test_options():
    assert read_forgetting_data(Forgetting(), read_dataset(VAL_SCENES), "x") is None
    for changes, told in (
        ({"forgetting_sweep": (2.0,)}, "--forgetting-sweep"),
        ({"forgetting_max_images": 0}, "-max-"),
    ):
        with pytest.raises(OptionError, match=told):
            replace(OPTIONS, **changes).check()
    assert merge_command(Path("t"), 1.0, base="b") == ""
