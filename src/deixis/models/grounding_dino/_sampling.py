"""Temporary stand-in for `deixis.ops.deformable_attention`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def multi_scale_deformable_attention(
    value: Tensor, spatial_shapes_hw: tuple[tuple[int, int], ...], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Bilinear samples of each level, weighted and summed."""
    batch, _, heads, channels = value.shape
    levels = value.split([height * width for height, width in spatial_shapes_hw], dim=1)
    sampled = []
    for index, (height, width) in enumerate(spatial_shapes_hw):
        level = levels[index].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = (2 * sampling_locations[:, :, :, index] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(grid_sample(level, grid.to(level.dtype), align_corners=False))
    weights = attention_weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]
    total = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)
    return total.view(batch, heads * channels, -1).transpose(1, 2)
