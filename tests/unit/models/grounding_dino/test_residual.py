"""Dropout on residual branches: how much is dropped, what is kept, and where nothing happens."""

from __future__ import annotations

import pytest
import torch

from deixis.models.grounding_dino.encoder import DropPath
from deixis.models.grounding_dino.layers.feed_forward import add_dropped, keep_mask


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_drops_as_many_as_asked_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1000, 1001), probability)
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - probability), rel=1e-4)]
    assert (mask == 0).float().mean().item() == pytest.approx(probability, abs=0.002)
    assert mask.mean().item() == pytest.approx(1, abs=0.01 if probability < 0.9 else 0.02)


def test_neighbours_are_dropped_independently() -> None:
    """Four numbers come from one draw."""
    torch.manual_seed(0)
    dropped = (keep_mask(torch.empty(250_000, 4), 0.3) == 0).float()
    for first in range(4):
        for second in range(first):
            assert (dropped[:, first] * dropped[:, second]).mean().item() == pytest.approx(0.09, abs=0.003)


@pytest.mark.parametrize("probability", [0.99999, 0.999999, 1 - 2**-40])
def test_just_below_one_a_few_are_kept(probability: float) -> None:
    torch.manual_seed(0)
    residual, branch = torch.zeros(2, 500, 1000), torch.ones(2, 500, 1000)
    out = add_dropped(residual, branch, probability, training=True)
    assert 0 < out.count_nonzero().item() < 100
    assert out[out > 0].unique().tolist() == [2.0**16]


@pytest.mark.parametrize("probability", [0.5, 1 - 2**-40, 1.0])
def test_dropped_paths_are_zero_and_the_others_are_scaled(probability: float) -> None:
    torch.manual_seed(0)
    out = DropPath(probability).train()(torch.ones(64, 3, 2))
    kept = out[out[:, 0, 0] != 0]
    assert out.isfinite().all()
    assert len(kept) == 0 if probability > 0.9 else 16 < len(kept) < 48
    assert (kept == 1 / (1 - probability or 1)).all()


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 1), (2, 5, 7)])
def test_gradient_is_the_mask(shape: tuple[int, ...]) -> None:
    residual, branch = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    torch.manual_seed(3)
    out = add_dropped(residual, branch, 0.4, training=True)
    torch.manual_seed(3)
    mask = keep_mask(branch, 0.4)
    torch.testing.assert_close(out, residual + branch * mask)
    to_residual, to_branch = torch.autograd.grad(out.sum(), (residual, branch))
    assert torch.equal(to_branch, mask)
    assert torch.equal(to_residual, torch.ones(shape))


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    residual, branch = torch.randn(3, 4), torch.randn(3, 4)
    state = torch.get_rng_state()
    assert torch.equal(add_dropped(residual, branch, 0.5, training=False), residual + branch)
    assert torch.equal(add_dropped(residual, branch, 0.0, training=True), residual + branch)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(add_dropped(residual, branch, 1.0, training=True), residual)
