"""Mask losses and overlaps, one number a mask; and the points they may be taken at. Pure functions.

A loss takes flat logits and targets: all pixels of a mask, or the values at points drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

DICE_EPSILON = 1.0


def mask_ce(logits: Float[Tensor, "*masks points"], targets: Float[Tensor, "*masks points"]) -> Float[Tensor, "*masks"]:
    """Binary cross-entropy of each mask, the mean over its points. Targets lie in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def naive_dice(
    logits: Float[Tensor, "*masks points"], targets: Float[Tensor, "*masks points"], epsilon: float = DICE_EPSILON
) -> Float[Tensor, "*masks"]:
    """1 - (2 Σpt + ε) / (Σp + Σt + ε), in [0, 1]: sums without the squares of V-Net's form (arXiv 1606.04797)."""
    shares = logits.sigmoid()
    overlap = (shares * targets).sum(-1)
    return 1 - (2 * overlap + epsilon) / (shares.sum(-1) + targets.sum(-1) + epsilon)


def mask_iou(
    predicted: Bool[Tensor, "*masks points"], targets: Bool[Tensor, "*masks points"]
) -> Float[Tensor, "*masks"]:
    """Intersection over union in float32; 1 where both are empty."""
    intersection = (predicted & targets).sum(-1)
    union = (predicted | targets).sum(-1)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


@torch.no_grad()
def uncertain_points(
    logits: Float[Tensor, "masks h w"],
    count: int,
    oversample: float = 3.0,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
    seeds: Sequence[tuple[int, int]] | None = None,
) -> Float[Tensor, "masks count 2"]:
    """Points (x, y) over the size of the mask, most of them where the mask is in doubt (PointRend, arXiv 1912.08193).

    `count * oversample` points are drawn evenly; of these the `count * importance` with logits nearest to 0 are taken,
    and the rest is drawn anew.

    Args:
        generator: where the points are drawn, on its own device; torch's global one where None.
        seeds: (masks, seed) of each sample, in the order of the masks: its points are then a function of its seed
            alone, whatever else is in the batch. `generator` is not used.
    """
    drawn, certain = int(count * oversample), int(count * importance)
    points = _evenly_drawn(len(logits), drawn + count - certain, logits.device, generator, seeds)
    candidates, others = points[:, :drawn], points[:, drawn:]
    nearest = values_at(logits, candidates).abs().topk(certain, dim=1, largest=False).indices
    return torch.cat([candidates.gather(1, nearest[..., None].expand(-1, -1, 2)), others], dim=1)


def _evenly_drawn(
    masks: int,
    count: int,
    device: torch.device,
    generator: torch.Generator | None,
    seeds: Sequence[tuple[int, int]] | None,
) -> Float[Tensor, "masks count 2"]:
    if seeds is None:
        home = generator.device if generator is not None else device
        return torch.rand((masks, count, 2), generator=generator, device=home).to(device)
    of_samples = [
        torch.rand((of_sample, count, 2), generator=torch.Generator(device).manual_seed(seed), device=device)
        for of_sample, seed in seeds
    ]
    return torch.cat([*of_samples, torch.zeros(0, count, 2, device=device)])


def values_at(maps: Float[Tensor, "masks h w"], points: Float[Tensor, "masks count 2"]) -> Float[Tensor, "masks count"]:
    """Bilinear values at points (x, y) over the size of the map; pixel centres lie at halves, outside there is 0."""
    grid = (2 * points - 1).to(maps.dtype)[:, :, None]
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]
