"""Fusion attention with folded projections equals the form with projected keys, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from deixis.models.grounding_dino.layers import fusion as module
from deixis.models.grounding_dino.layers.fusion import FusionAttention, weight_and_bias

KEYS, TOKENS, WIDTH, HEADS = 23, 6, 12, 2


def attention(dropout: float = 0.0) -> FusionAttention:
    torch.manual_seed(0)
    out = FusionAttention(WIDTH, 16, HEADS, dropout=dropout).double()
    for parameter in out.parameters():
        nn.init.normal_(parameter, std=0.5)
    return out


def inputs(padded: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    vision, text = (torch.randn(2, count, WIDTH, generator=generator, dtype=torch.float64) for count in (KEYS, TOKENS))
    vision_mask = torch.ones(2, 1, 1, KEYS, dtype=torch.bool)
    text_mask = torch.ones(2, 1, 1, TOKENS, dtype=torch.bool)
    if padded:
        vision_mask[1, ..., 15:], text_mask[0, ..., 4:] = False, False
    scale = torch.tensor([0.7, -2.0], dtype=torch.float64)[:, None, None] * torch.linspace(0.5, 1, WIDTH)
    mask = vision_mask if padded else None
    return vision.requires_grad_(), text.requires_grad_(), mask, text_mask, scale.requires_grad_()


def run(attend: nn.Module, padded: bool) -> dict[str, Tensor]:
    """Both outputs, and the gradients of the inputs and of everything that trains."""
    vision, text, vision_mask, text_mask, scale = inputs(padded)
    to_image, to_text = attend(vision, text, vision_mask, text_mask=text_mask, scale=scale)
    loss = (
        to_image * torch.linspace(-1, 1, to_image.numel(), dtype=torch.float64).view_as(to_image)
    ).sum() + to_text.square().sum()
    named = {"vision": vision, "text": text, "scale": scale} | {
        n: p for n, p in attend.named_parameters() if p.requires_grad
    }
    gradients = torch.autograd.grad(loss, list(named.values()))
    return {"to image": to_image, "to text": to_text} | dict(zip(named, gradients, strict=True))


@pytest.fixture
def unfolded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(module, "weight_and_bias", lambda layer: None)
    return monkeypatch


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_folded_equals_projected(padded: bool, lora: bool, unfolded: pytest.MonkeyPatch) -> None:
    attend = with_lora(attention()) if lora else attention()
    wanted = run(attend, padded)
    unfolded.undo()
    got = run(attend, padded)
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-9, rtol=1e-7, msg=name)


def with_lora(attend: FusionAttention, dropout: float = 0.0) -> FusionAttention:
    """Adapters on all six projections, all of whose weights are random."""
    config = LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=r".*_proj")
    inject_adapter_in_model(config, attend, adapter_name="default")
    for name, parameter in attend.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.5)
    return attend.double()


def test_longer_prompts_than_a_heads_width_are_projected(unfolded: pytest.MonkeyPatch) -> None:
    attend = attention().eval()
    generator = torch.Generator().manual_seed(1)
    vision, text = (torch.randn(1, count, WIDTH, generator=generator, dtype=torch.float64) for count in (KEYS, 9))
    mask = torch.ones(1, 1, 1, 9, dtype=torch.bool)
    given = {"text_mask": mask, "scale": torch.ones(1, 1, WIDTH, dtype=torch.float64)}
    wanted = attend(vision, text, None, **given)
    unfolded.undo()
    for got, tensor in zip(attend(vision, text, None, **given), wanted, strict=True):
        assert torch.equal(got, tensor)


def test_dropout_reaches_the_values_bias() -> None:
    """A value's bias is inside the sum that dropout thins out: rows that sum to 1 without it do not with it."""
    attend = attention(dropout=0.5).train()
    nn.init.zeros_(attend.values_vision_proj.weight)
    nn.init.ones_(attend.values_vision_proj.bias)
    with torch.no_grad():
        vision, text, _, text_mask, scale = inputs(False)
        _, plain = copy.deepcopy(attend).eval()(vision, text, None, text_mask=text_mask, scale=scale)
        _, thinned = attend(vision, text, None, text_mask=text_mask, scale=scale)
    assert (thinned - plain).abs().amax((0, 2)).min() > 0.01


def test_dropout_and_mixed_precision_leave_the_image_itself_alone() -> None:
    """What is dropped, or rounded to 16 bits, is what the image gathers."""
    vision, text, _, text_mask, scale = inputs(False)
    with torch.no_grad():
        dropped, _ = attention(dropout=0.5).train()(vision, text, None, text_mask=text_mask, scale=scale * 0)
        assert torch.equal(dropped, vision)
        single = [tensor.float() for tensor in (vision, text, scale)]
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = attention().float()(*single[:2], None, text_mask=text_mask, scale=single[2] * 0)
    assert torch.equal(mixed, single[0])


def test_weight_and_bias_of_what_is_no_plain_map() -> None:
    attend = with_lora(attention(), dropout=0.5)
    assert weight_and_bias(attend.train().vision_proj) is None
    assert weight_and_bias(attend.eval().vision_proj) is not None
    assert weight_and_bias(nn.Linear(2, 2, bias=False)) is None
    assert weight_and_bias(nn.Identity()) is None


@pytest.mark.parametrize("merged", [False, True])
def test_weight_and_bias_are_the_layers(merged: bool) -> None:
    layer = with_lora(attention()).vision_proj
    given = torch.randn(3, WIDTH, dtype=torch.float64)
    if merged:
        layer.merge()
    found = weight_and_bias(layer)
    assert found is not None
    torch.testing.assert_close(nn.functional.linear(given, *found), layer(given))
    layer.unmerge()
    layer.enable_adapters(False)
    found = weight_and_bias(layer)
    assert found is not None
    torch.testing.assert_close(nn.functional.linear(given, *found), layer(given))
