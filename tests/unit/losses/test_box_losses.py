"""L1 and GIoU losses of pairs."""

from __future__ import annotations

import pytest
import torch

from deixis.losses.boxes import giou_loss, l1_loss


def test_no_pairs():
    nothing = torch.zeros(0, 4)
    assert l1_loss(nothing, nothing).shape == giou_loss(nothing, nothing).shape == (0,)


def test_a_10_by_40_box_against_itself_turned():
    upright, lying = torch.tensor([[0.5, 0.5, 0.1, 0.4]]), torch.tensor([[0.5, 0.5, 0.4, 0.1]])
    assert l1_loss(upright, upright).item() == 0
    assert giou_loss(upright, upright).item() == pytest.approx(0, abs=1e-6)
    assert l1_loss(upright, lying).item() == pytest.approx(0.6)
    assert giou_loss(upright, lying).item() == pytest.approx(1 - (0.01 / 0.07 - 0.09 / 0.16), rel=1e-5)


def test_far_apart_is_near_two_and_pulls_together():
    near, far = torch.tensor([[0.05, 0.05, 0.02, 0.02]]), torch.tensor([[0.95, 0.95, 0.02, 0.02]], requires_grad=True)
    loss = giou_loss(far, near)
    loss.sum().backward()
    assert 1.99 < loss.item() <= 2
    assert (far.grad[0, :2] > 0).all()  # a step downhill moves the centre towards the other box


def test_gradients_equal_differences():
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.rand(6, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.1).requires_grad_() for _ in "ab"]
    assert torch.autograd.gradcheck(giou_loss, pairs)
    assert torch.autograd.gradcheck(l1_loss, pairs)
