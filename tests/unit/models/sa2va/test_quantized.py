"""A segmenter whose language model is in 4 or 8 bits: it trains adapters, and what is written is an ordinary one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_segmenters import TURNS, batch_of
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from torch import Tensor, nn

from deixis.cli.main import main
from deixis.models.sa2va import Sa2vaBundle, load_sa2va, merge_adapters
from deixis.models.segmenter_adapter import load_adapted_segmenter
from deixis.options import checks
from deixis.options.groups import Lora
from deixis.options.refer_train import ReferParts
from deixis.recipes.refer.model import prepare_segmenter, save_segmenter

needs_bitsandbytes = pytest.mark.skipif(
    checks.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (the extra quantize)"
)
FIRST = "vlm.model.language_model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("quantized") / "base")


def prepared(base: Path, bits: str | None) -> Sa2vaBundle:
    parts = ReferParts(model=str(base), quantize=bits)  # type: ignore[arg-type]
    bundle = prepare_segmenter(parts, Lora(lora=True, lora_r=4), "deixis", seed=0)
    bundle.model.to("cpu")  # as every run moves it to its device
    return bundle


def outputs(bundle: Sa2vaBundle) -> list[Tensor]:
    found = bundle.model(*batch_of(bundle, TURNS, (1, 1, 1)))
    return [found["pred_masks"], found["label_logits"]]


def far(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    return max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in zip(ours, theirs, strict=True))


@needs_bitsandbytes
@pytest.mark.parametrize(("bits", "share", "apart"), [("4bit", 0.2, 0.5), ("8bit", 0.3, 0.1)])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_adapters_train_on_it_and_the_teacher_is_an_ordinary_model_that_answers_the_same(
    base: Path, tmp_path: Path, bits: str, share: float, apart: float
) -> None:
    whole, bundle = prepared(base, None), prepared(base, bits)
    layer = bundle.model.get_submodule(FIRST).get_base_layer()
    full = load_sa2va(base).model.get_submodule(FIRST).weight
    assert layer.weight.nbytes <= share * full.nbytes
    assert {name for name, weight in bundle.model.named_parameters() if weight.requires_grad} == {
        name for name, weight in whole.model.named_parameters() if weight.requires_grad
    }
    difference = far(outputs(bundle), outputs(whole))
    assert 0 < difference < apart

    bundle.model.train()
    sum(output.square().mean() for output in outputs(bundle)).backward()
    for name, weight in bundle.model.named_parameters():
        if ".lora_B." in name:
            assert weight.grad is not None, name
            assert weight.grad.any(), name
            with torch.no_grad():
                weight -= 0.1 * weight.grad / weight.grad.norm()
    bundle.model.eval()

    save_segmenter(bundle, tmp_path / "best", adapter_of=str(base))
    teacher = load_sa2va(tmp_path / "best")
    assert all(type(module) is not type(layer) for module in teacher.model.modules())
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in teacher.model.state_dict().items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in load_sa2va(base).model.state_dict().items()
    }
    # 8 bits: the trained model also rounds activations
    assert far(outputs(teacher), outputs(bundle)) < (1e-4 if bits == "4bit" else apart)
    # its adapter fits the weights that are not rounded
    assert far(outputs(load_adapted_segmenter(tmp_path / "best/adapter")), outputs(teacher)) < 2 * apart


@needs_bitsandbytes
def test_one_that_was_never_moved_to_a_device_is_not_rounded(base: Path) -> None:
    bundle = prepare_segmenter(ReferParts(model=str(base), quantize="4bit"), Lora(lora=True), "deixis", seed=0)
    merged = copy.deepcopy(bundle.model)
    merge_adapters(merged)
    layer = merged.get_submodule(FIRST)
    assert type(layer) is nn.Linear
    assert torch.equal(layer.weight, load_sa2va(base).model.get_submodule(FIRST).weight)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--quantize 4bit needs bitsandbytes; install it with: pip install 'deixis[quantize]'"),
        (("--shard-model",), "--quantize and --shard-model exclude each other"),
        (("--no-lora",), "--quantize is for a frozen language model"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, more: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        main(refer_arguments(base, tmp_path, "--quantize", "4bit", *more))
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
