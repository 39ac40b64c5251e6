"""The focal loss: by hand, at the ends of the number range, and the fused sums against the plain formula."""

from __future__ import annotations

import math

import pytest
import torch

from deixis.losses import focal
from deixis.losses.focal import focal_costs, focal_loss_sums, sigmoid_focal_loss


def random_case(dtype=torch.float32, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 2, 5, 7, generator=generator) * scale).to(dtype).requires_grad_()
    positive = torch.rand(3, 2, 5, 7, generator=generator) < 0.2
    token_mask = torch.arange(7) < torch.tensor([[7], [4]])
    return logits, positive & token_mask[:, None], token_mask


def test_one_number_by_hand():
    logits = torch.tensor([0.0, 0.0, math.log(3)])  # probability 1/2, 1/2, 3/4
    loss = sigmoid_focal_loss(logits, torch.tensor([True, False, False]))
    expected = [0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2), 0.75 * 0.5625 * math.log(4)]
    assert loss.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("logit", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("positive", [True, False])
def test_extreme_logits_are_finite_and_linear_where_wrong(logit, positive):
    logits = torch.tensor([logit], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([positive]))
    loss.backward()
    wrong = (logit < 0) == positive
    weight = 0.25 if positive else 0.75
    assert loss.item() == pytest.approx(weight * abs(logit) if wrong else 0.0)
    assert abs(logits.grad.item()) == pytest.approx(weight if wrong else 0.0)


@pytest.mark.parametrize("chunk", [1, 70, 1 << 18])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.5), (1.0, 1.0)])
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_fused_sums_equal_the_plain_formula(chunk, alpha, gamma, scale, monkeypatch):
    monkeypatch.setattr(focal, "CPU_CHUNK", chunk)
    logits, positive, token_mask = random_case(scale=scale)
    fused = focal_loss_sums(logits, positive, token_mask, alpha=alpha, gamma=gamma)
    plain = torch.where(token_mask[:, None], sigmoid_focal_loss(logits, positive, alpha, gamma=gamma), 0.0).sum(
        (1, 2, 3)
    )
    assert torch.allclose(fused, plain, rtol=1e-5)
    upstream = torch.tensor([1.0, -2.0, 0.5])
    ours, theirs = torch.autograd.grad(fused, logits, upstream), torch.autograd.grad(plain, logits, upstream)
    assert torch.allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-6)
    assert (ours[0][:, 1, :, 4:] == 0).all()  # padded tokens


def test_fused_gradient_equals_differences():
    logits, positive, token_mask = random_case(torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: focal_loss_sums(x, positive, token_mask, alpha=0.25, gamma=2.0), (logits,)
    )


def test_padding_may_hold_any_finite_number():
    logits, positive, token_mask = random_case()
    before = focal_loss_sums(logits, positive, token_mask)
    logits = torch.where(token_mask[:, None], logits, 1e4)
    assert torch.equal(focal_loss_sums(logits, positive, token_mask), before)


def test_costs_are_bounded_and_mirror_each_other():
    logits = torch.tensor([-1e4, -30.0, -17.0, 0.0, 17.0, 30.0, 1e4])
    as_positive, as_negative = focal_costs(logits, alpha=0.5)
    assert torch.allclose(as_positive, as_negative.flip(0))
    assert as_positive[0].item() == pytest.approx(-0.5 * math.log(1e-8))
    assert as_positive[-1].item() == pytest.approx(0.0, abs=1e-12)
