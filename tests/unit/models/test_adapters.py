"""LoRA adapters on the detector; that PEFT reads them is tested in parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_detectors import IDS, images, perturb, prompts, small_detector, total
from torch import nn

from deixis.errors import ModelError, OptionError
from deixis.models.adapters import TARGETS, add_lora, load_adapter, merge, save_adapter
from deixis.models.freezing import freeze

INPUTS = images((96, 64)) | prompts(IDS[0])


def trainable(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_only_adapters_train_and_all_of_them_do() -> None:
    model = small_detector()
    add_lora(model, rank=2, targets=tuple(TARGETS))
    assert trainable(model)
    assert all(".lora_" in name for name in trainable(model))
    perturb(nn.ParameterList(p for p in model.parameters() if p.requires_grad))
    total(model(**INPUTS)).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("target", TARGETS)
def test_targets_stay_in_their_part(target: str) -> None:
    model = small_detector()
    add_lora(model, rank=2, targets=[target])
    places = {"encoder": "model.encoder.", "decoder": "model.decoder.", "backbone": "model.backbone."}
    assert all(name.startswith(places.get(target, "model.text_backbone.")) for name in trainable(model))
    assert len(trainable(model)) >= 8


def test_merged_model_predicts_the_same() -> None:
    model = small_detector()
    add_lora(model, rank=2)
    perturb(nn.ParameterList(p for p in model.parameters() if p.requires_grad))
    adapted = model(**INPUTS)["pred_boxes"]
    merge(model)
    torch.testing.assert_close(model(**INPUTS)["pred_boxes"], adapted, atol=1e-5, rtol=0)
    assert model.state_dict().keys() == small_detector().state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())
    merge(model)  # nothing left to merge
    add_lora(model, rank=2)  # and room for the next


def test_dropped_adapters_leave_the_weights_alone() -> None:
    model = small_detector()
    plain = model(**INPUTS)["pred_boxes"]
    add_lora(model, rank=2)
    perturb(nn.ParameterList(p for p in model.parameters() if p.requires_grad))
    merge(model, keep=False)
    torch.testing.assert_close(model(**INPUTS)["pred_boxes"], plain, atol=1e-6, rtol=0)


def test_adapters_survive_the_disk(tmp_path: Path) -> None:
    model = small_detector()
    add_lora(model, rank=2, alpha=6, targets=["decoder"])
    perturb(nn.ParameterList(p for p in model.parameters() if p.requires_grad))
    save_adapter(model, tmp_path / "adapter")
    fresh = small_detector()
    load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(fresh(**INPUTS)["pred_boxes"], model(**INPUTS)["pred_boxes"])
    assert trainable(fresh) == trainable(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_impossible_options() -> None:
    for targets in ((), ("heads",)):
        with pytest.raises(OptionError, match="LoRA targets must be some of"):
            add_lora(small_detector(), targets=targets)
    with pytest.raises(OptionError, match="at least 1, got 0"):
        add_lora(small_detector(), rank=0)


def test_adapters_twice() -> None:
    model = small_detector()
    add_lora(model, rank=2)
    with pytest.raises(ModelError, match="merge them first"):
        add_lora(model, rank=2)


def test_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no adapters"):
        save_adapter(small_detector(), tmp_path / "adapter")


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json: cannot be read"):
        load_adapter(small_detector(), tmp_path)


def test_adapter_of_another_model(tmp_path: Path) -> None:
    model = small_detector()
    add_lora(model, rank=2, targets=["decoder"])
    save_adapter(model, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"missing base_model\.model\.model\.decoder\.layers\.2"):
        load_adapter(small_detector(decoder_layers=3), tmp_path / "adapter")

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = torch.zeros(3, 64)
    save_file(tensors | {"base_model.model.stranger": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"2 faults.*unexpected base_model.model.stranger.*shape \(3, 64\)"):
        load_adapter(small_detector(), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [
        (["fc1"], 5, r"the adapter does not fit the model \("),
        # a layer that can have an adapter, then one that cannot
        (r".*\.(fc1|final_layer_norm)", 2, "an adapter for another model"),
        ("(", 2, "an adapter for another model"),
    ],
)
def test_a_failed_load_leaves_the_model_as_it_was(targets: Any, rank: int, message: str, tmp_path: Path) -> None:
    model = small_detector()
    add_lora(model, rank=2, targets=["decoder"])
    save_adapter(model, tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": rank, "target_modules": targets}))
    other = small_detector()
    freeze(other, ["backbone"])
    before, modules = trainable(other), [type(module) for module in other.modules()]
    assert 0 < len(before) < len(list(other.parameters()))
    with pytest.raises(ModelError, match=message) as raised:
        load_adapter(other, tmp_path)
    assert "\n" not in str(raised.value)
    assert trainable(other) == before
    assert [type(module) for module in other.modules()] == modules
    assert other.state_dict().keys() == small_detector().state_dict().keys()
    add_lora(other, rank=2)  # no adapters are left in it
