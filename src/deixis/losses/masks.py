"""Mask losses and IoU, one number per mask, and the points at which they may be computed. Pure functions.

The losses take flat logits and targets: all pixels of a mask, or the values at sampled points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

DICE_EPSILON = 1.0


def mask_ce(logits: Float[Tensor, "*masks points"], targets: Float[Tensor, "*masks points"]) -> Float[Tensor, "*masks"]:
    """Binary cross-entropy per mask, the mean over its points. Targets lie in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def naive_dice(
    logits: Float[Tensor, "*masks points"], targets: Float[Tensor, "*masks points"], epsilon: float = DICE_EPSILON
) -> Float[Tensor, "*masks"]:
    """Dice loss per mask: 1 - (2 Σpt + ε) / (Σp + Σt + ε), in [0, 1].

    V-Net's loss (arXiv 1606.04797, section 3) without the squares in its denominator, as Sa2VA trains with it.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(-1)  # [*masks, points] -> [*masks]
    return 1 - (2 * overlap + epsilon) / (probabilities.sum(-1) + targets.sum(-1) + epsilon)


def mask_iou(
    predicted: Bool[Tensor, "*masks points"], targets: Bool[Tensor, "*masks points"]
) -> Float[Tensor, "*masks"]:
    """Intersection over union in float32; 1 where both are empty."""
    intersection = (predicted & targets).sum(-1)  # [*masks, points] -> [*masks]
    union = (predicted | targets).sum(-1)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


@torch.no_grad()
def uncertain_points(
    logits: Float[Tensor, "masks h w"],
    count: int,
    oversample: float = 3.0,
    *,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
    seeds: Sequence[tuple[int, int]] | None = None,
) -> Float[Tensor, "masks count 2"]:
    """Points (x, y) in [0, 1], as fractions of the mask's size, most of them where the mask is uncertain.

    PointRend's training points (arXiv 1912.08193, section 3.1): `count * oversample` are drawn uniformly, the
    `count * importance` of them with logits nearest to 0 are kept, and the others are new uniform points.

    Args:
        generator: draws the points, on its own device; None uses torch's global one.
        seeds: (masks, seed) of each sample, in the order of the masks. A sample's points are then a function of its
            seed alone, whatever else is in the batch, and `generator` is not used.
    """
    drawn, certain = int(count * oversample), int(count * importance)
    # One draw for candidates and uniform points; the number of masks is the only thing that shapes it.
    points = _uniform_points(len(logits), drawn + count - certain, logits.device, generator=generator, seeds=seeds)
    candidates, others = points[:, :drawn], points[:, drawn:]
    # [masks, certain]: where the probability is nearest to 0.5
    nearest = values_at(logits, candidates).abs().topk(certain, dim=1, largest=False).indices
    # [masks, certain, 2] and [masks, count - certain, 2] -> [masks, count, 2]
    return torch.cat([candidates.gather(1, nearest[..., None].expand(-1, -1, 2)), others], dim=1)


def _uniform_points(
    masks: int,
    count: int,
    device: torch.device,
    *,
    generator: torch.Generator | None,
    seeds: Sequence[tuple[int, int]] | None,
) -> Float[Tensor, "masks count 2"]:
    if seeds is None:
        own_device = generator.device if generator is not None else device
        return torch.rand((masks, count, 2), generator=generator, device=own_device).to(device)
    of_samples = [
        torch.rand((of_sample, count, 2), generator=torch.Generator(device).manual_seed(seed), device=device)
        for of_sample, seed in seeds
    ]
    # the empty tensor keeps `cat` valid for a batch without masks
    return torch.cat([*of_samples, torch.zeros(0, count, 2, device=device)])


def values_at(maps: Float[Tensor, "masks h w"], points: Float[Tensor, "masks count 2"]) -> Float[Tensor, "masks count"]:
    """Bilinear values at points (x, y), as fractions of the map's size. Pixel centres lie at halves; outside is 0."""
    grid = (2 * points - 1).to(maps.dtype)[:, :, None]  # [0, 1] -> [-1, 1]; [masks, count, 2] -> [masks, count, 1, 2]
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]  # [masks, 1, count, 1] -> [masks, count]
