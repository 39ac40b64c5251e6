"""The feed-forward in stretches equals the plain one, forward and backward, whatever trains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deixis.models.grounding_dino.layers import feed_forward as module
from deixis.models.grounding_dino.layers.feed_forward import ReluFeedForward, feed_forward


def layers(dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(6, 16, dtype=dtype), nn.Linear(16, 5, dtype=dtype)


def gradients(out: Tensor, of: list[Tensor]) -> list[Tensor | None]:
    direction = torch.linspace(-1, 1, out.numel()).view_as(out)
    return list(torch.autograd.grad(out, of, direction, allow_unused=True))


@pytest.mark.parametrize("stretch", [1, 16 * 3, 16 * 7, 2**20])
@pytest.mark.parametrize("frozen", [(), ("tokens",), ("fc1.weight", "fc1.bias"), ("fc2.weight",), ("fc1.bias",)])
def test_relu_equals_plain(stretch: int, frozen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of one token, of three and of seven out of 14, and of all; gradients of whatever wants them."""
    monkeypatch.setattr(module, "CHUNK_NUMBERS", stretch)
    fc1, fc2 = layers()
    tensors = {"tokens": torch.randn(2, 7, 6), "fc1.weight": fc1.weight, "fc1.bias": fc1.bias, "fc2.weight": fc2.weight}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name not in frozen)
    of = [tensor for tensor in (*tensors.values(), fc2.bias) if tensor.requires_grad]
    got = feed_forward(tensors["tokens"], fc1, fc2, activation=nn.ReLU())
    wanted = fc2(fc1(tensors["tokens"]).relu())
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(gradients(got, of), gradients(wanted, of))


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 16 * 2)
    fc1, fc2 = layers(torch.float64)
    tokens = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ReluFeedForward.apply, (tokens, fc1.weight, fc1.bias, fc2.weight, fc2.bias))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()])
@pytest.mark.parametrize("tokens", [0, 1, 9])
def test_without_gradient(activation: nn.Module, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 16 * 4)
    fc1, fc2 = layers()
    given = torch.randn(1, tokens, 6)
    kept = given.clone()
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(given, fc1, fc2, activation=activation), fc2(activation(fc1(given))))
    assert torch.equal(given, kept)


def test_other_activations_and_dropout_have_gradients() -> None:
    fc1, fc2 = layers()
    tokens = torch.randn(1, 4, 6, requires_grad=True)
    got = feed_forward(tokens, fc1, fc2, activation=nn.GELU())
    torch.testing.assert_close(gradients(got, [tokens]), gradients(fc2(nn.GELU()(fc1(tokens))), [tokens]))
    torch.manual_seed(1)
    dropped = feed_forward(tokens, fc1, fc2, activation=nn.ReLU(), activation_dropout=0.5)
    torch.manual_seed(1)
    assert torch.equal(dropped, fc2(nn.functional.dropout(fc1(tokens).relu(), 0.5)))


def test_mixed_precision_is_kept() -> None:
    fc1, fc2 = layers()
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(torch.randn(1, 4, 6), fc1, fc2, activation=nn.ReLU()).dtype == torch.bfloat16
