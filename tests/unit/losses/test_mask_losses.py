"""Mask losses and points: against plain loops in float64, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_refer_loss import iou, mask_losses, value_at

from deixis.losses.masks import mask_ce, mask_iou, naive_dice, uncertain_points, values_at


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("soft", [False, True])
def test_equal_plain_loops_in_float64(generator: torch.Generator, soft: bool) -> None:
    logits = 4 * torch.randn(5, 60, dtype=torch.float64, generator=generator)
    targets = torch.rand(5, 60, dtype=torch.float64, generator=generator)
    targets = targets if soft else targets.round()
    wanted = np.array([mask_losses(x, t) for x, t in zip(logits.tolist(), targets.tolist(), strict=True)])
    np.testing.assert_allclose(mask_ce(logits, targets), wanted[:, 0], rtol=1e-12)
    np.testing.assert_allclose(naive_dice(logits, targets), wanted[:, 1], rtol=1e-12)


def test_gradients_equal_differences(generator: torch.Generator) -> None:
    logits = torch.randn(2, 9, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.rand(2, 9, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: mask_ce(x, targets), logits)
    assert torch.autograd.gradcheck(lambda x: naive_dice(x, targets), logits)
    maps = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    points = torch.rand(2, 7, 2, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: values_at(x, points), maps)


def test_dice_without_squares() -> None:
    # p = 1/2 everywhere, half of 100 pixels meant: (2·25 + 1) / (50 + 50 + 1); with squares it would be 51 / 76
    targets = (torch.arange(100) < 50).float()
    assert float(naive_dice(torch.zeros(100), targets)) == pytest.approx(1 - 51 / 101)


@pytest.mark.parametrize("size", [1e4, -1e4, 3e38, -3e38])
def test_extreme_logits_stay_finite(size: float) -> None:
    logits = torch.full((2, 8), size, requires_grad=True)
    targets = torch.tensor([[1.0] * 8, [0.0] * 8])
    loss = naive_dice(logits, targets).sum()
    if abs(size) < 1e30:  # sums of the cross-entropy itself leave float32 above
        loss = loss + mask_ce(logits, targets).sum()
    loss.backward()
    assert logits.grad is not None
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_empty_on_both_sides() -> None:
    nothing, everything = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    assert mask_iou(nothing, nothing) == 1
    assert mask_iou(everything, nothing) == 0
    assert mask_iou(nothing, everything) == 0
    assert float(naive_dice(torch.full((4,), -50.0), nothing.float())) == pytest.approx(0, abs=1e-6)


def test_iou_equals_plain_loops(generator: torch.Generator) -> None:
    logits = torch.randn(6, 20, generator=generator)
    targets = torch.rand(6, 20, generator=generator) > 0.6
    wanted = [iou(x, t) for x, t in zip(logits.tolist(), targets.tolist(), strict=True)]
    np.testing.assert_allclose(mask_iou(logits > 0, targets), wanted, rtol=1e-6)


def test_values_between_pixels_equal_plain_loops(generator: torch.Generator) -> None:
    maps = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    points = torch.rand(2, 50, 2, dtype=torch.float64, generator=generator)
    points[0, :4] = torch.tensor([[0.0, 0], [1, 1], [0.1, 1 / 6], [0.5, 0.5]])  # corners, a pixel's centre, the middle
    wanted = [[value_at(m, x, y) for x, y in p] for m, p in zip(maps.numpy(), points.tolist(), strict=True)]
    np.testing.assert_allclose(values_at(maps, points), wanted, atol=1e-12)
    assert float(values_at(maps, points)[0, 2]) == pytest.approx(float(maps[0, 0, 0]))


def test_points_gather_where_the_mask_is_in_doubt() -> None:
    logits = torch.full((3, 40, 40), 9.0)
    logits[:, :, 20:] = -9.0  # in doubt along the middle only
    points = uncertain_points(logits, 400, 3.0, importance=0.75, generator=torch.Generator().manual_seed(0))
    assert points.shape == (3, 400, 2)
    assert points.min() >= 0
    assert points.max() < 1
    middle = ((points[..., 0] - 0.5).abs() < 0.0126).float().mean(1)
    # of 1,200 candidates some 30 lie in the column of change: all of them, and few by chance among the others
    assert (middle > 0.05).all()
    evenly = uncertain_points(logits, 400, 3.0, importance=0.0, generator=torch.Generator().manual_seed(0))
    assert (((evenly[..., 0] - 0.5).abs() < 0.0126).float().mean(1) < 0.05).all()


def test_three_quarters_of_the_points_are_the_least_certain_candidates() -> None:
    logits = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))
    points = uncertain_points(logits, 40, 3.0, importance=0.75, generator=torch.Generator().manual_seed(5))
    drawn = torch.rand(1, 120 + 10, 2, generator=torch.Generator().manual_seed(5))
    doubt = values_at(logits, drawn[:, :120]).abs()[0]
    chosen = drawn[0, :120][doubt.argsort()[:30]]
    torch.testing.assert_close(points[0, :30].sort(0).values, chosen.sort(0).values)
    torch.testing.assert_close(points[0, 30:], drawn[0, 120:])


def test_points_follow_the_generator_alone() -> None:
    logits = torch.randn(2, 8, 8)
    torch.manual_seed(0)
    first = uncertain_points(logits, 20, generator=torch.Generator().manual_seed(7))
    torch.manual_seed(99)
    torch.testing.assert_close(first, uncertain_points(logits, 20, generator=torch.Generator().manual_seed(7)))
    assert not torch.equal(first, uncertain_points(logits, 20, generator=torch.Generator().manual_seed(8)))


def test_no_mask_has_no_points() -> None:
    points = uncertain_points(torch.zeros(0, 8, 8), 20)
    assert points.shape == (0, 20, 2)
    assert values_at(torch.zeros(0, 8, 8), points).shape == (0, 20)


def test_points_of_a_sample_depend_on_its_seed_alone() -> None:
    """Whatever stands beside it in the batch, as when two processes share what one would see."""
    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(1))
    together = uncertain_points(logits, 20, seeds=[(2, 11), (0, 7), (3, 2**61)])
    torch.manual_seed(99)
    torch.testing.assert_close(together[:2], uncertain_points(logits[:2], 20, seeds=[(2, 11)]), rtol=0, atol=0)
    torch.testing.assert_close(together[2:], uncertain_points(logits[2:], 20, seeds=[(3, 2**61)]), rtol=0, atol=0)
    assert not torch.equal(together[:2], uncertain_points(logits[:2], 20, seeds=[(2, 12)]))
    assert uncertain_points(logits[:0], 20, seeds=[]).shape == (0, 20, 2)
