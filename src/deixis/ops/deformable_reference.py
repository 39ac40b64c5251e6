"""Multi-scale deformable attention in plain PyTorch: the kernels' reference, and the fallback without them.

Deformable DETR (https://arxiv.org/abs/2010.04159), equation 3, with the bilinear sampling of `grid_sample`
(zeros outside, pixel centres at half-integers).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def reference_deformable_attention(
    value: Float[Tensor, "batch keys heads channels"],
    spatial_shapes_hw: tuple[tuple[int, int], ...],
    sampling_locations: Float[Tensor, "batch queries heads levels points 2"],
    *,
    attention_weights: Float[Tensor, "batch queries heads levels points"],
) -> Float[Tensor, "batch queries heads*channels"]:
    """Works on every device and under every PyTorch transform; arguments as in `multi_scale_deformable_attention`."""
    batch, _, heads, channels = value.shape
    queries = attention_weights.shape[1]
    if not attention_weights.numel():  # no sample: zeros, still with a graph to all three
        nothing = value.flatten(2)[:, :0].sum(1, keepdim=True)  # [batch, 1, heads*channels]
        # [batch, queries, 1] each
        sums = (tensor.flatten(2).sum(-1, keepdim=True) for tensor in (sampling_locations, attention_weights))
        return sum(sums, nothing)
    out = value.new_zeros(batch * heads, channels, queries)
    # grid_sample counts from -1 to 1
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)  # [batch*heads, queries, levels, points, 2]
    weights = attention_weights.transpose(1, 2).flatten(0, 1)  # [batch*heads, queries, levels, points]
    sizes = [height * width for height, width in spatial_shapes_hw]
    for level, (level_value, (height, width)) in enumerate(
        zip(torch.split(value, sizes, dim=1), spatial_shapes_hw, strict=True)
    ):
        # [batch, cells, heads, channels] -> [batch*heads, channels, height, width]
        picture = level_value.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        # [batch*heads, channels, queries, points]
        sampled = F.grid_sample(picture, grids[:, :, level], align_corners=False)
        out = out + (sampled * weights[:, None, :, level]).sum(-1)  # equation 3: the sum over points, then levels
    # [batch*heads, channels, queries] -> [batch, queries, heads*channels]
    return out.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
