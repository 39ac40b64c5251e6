"""Positions as pure functions: sine embeddings, valid ratios, reference points and proposals.

A *pyramid* is a list of feature levels, flattened and concatenated along one axis of `keys` positions. `shapes_hw` has
the (height, width) of each level as Python integers, so that nothing here synchronises with the device.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ShapesHw = tuple[tuple[int, int], ...]


def sine_embedding(values: Float[Tensor, "*axes"], dim: int, temperature: float) -> Float[Tensor, "*axes {dim}"]:
    """Sines and cosines of `2 pi * values` at `dim / 2` wavelengths, interleaved (sin, cos, sin, cos, ...).

    Attention Is All You Need, arXiv 1706.03762, section 3.5, with DETR's factor of 2 pi.

    >>> [round(value, 3) for value in sine_embedding(torch.tensor(0.125), 4, temperature=10000).tolist()]
    [0.707, 0.707, 0.008, 1.0]
    """
    steps = torch.arange(dim, dtype=values.dtype, device=values.device)
    # channels 2i and 2i + 1 share temperature^(2i / dim)
    wavelengths = temperature ** (2 * torch.div(steps, 2, rounding_mode="floor") / dim)
    angles = values[..., None] * (2 * math.pi) / wavelengths
    # two of [..., dim / 2] -> [..., dim / 2, 2] -> [..., dim]
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def box_embedding(boxes_norm: Float[Tensor, "*axes 4"], dim: int) -> Float[Tensor, "*axes {4*dim}"]:
    """Sine embedding of (centre x, centre y, width, height), in the order y, x, width, height.

    DAB-DETR, arXiv 2201.12329, section 4.2, with the order of its code.
    """
    embedded = sine_embedding(boxes_norm, dim, temperature=10000)  # [..., 4] -> [..., 4, dim]
    return embedded[..., [1, 0, 2, 3], :].flatten(-2)  # [..., 4, dim] -> [..., 4 * dim]


def image_positions(
    mask: Bool[Tensor, "batch height width"], dim: int, temperature: float, *, dtype: torch.dtype
) -> Float[Tensor, "batch height*width {dim}"]:
    """Sine embedding of each cell's position in the unpadded part of its image, y first, then x.

    Args:
        mask: true on cells that show the image.
    """
    # 1 to the number of valid rows (or columns), divided by it: cells at the far edge are at 1
    rows = mask.cumsum(1, dtype=dtype)
    columns = mask.cumsum(2, dtype=dtype)
    y_norm = rows / (rows[:, -1:, :] + 1e-6)
    x_norm = columns / (columns[:, :, -1:] + 1e-6)
    y = sine_embedding(y_norm, dim // 2, temperature)
    x = sine_embedding(x_norm, dim // 2, temperature)
    return torch.cat((y, x), dim=-1).flatten(1, 2)  # [B, h, w, dim] -> [B, h * w, dim]


def valid_size_wh(mask: Bool[Tensor, "batch height width"], dtype: torch.dtype) -> Float[Tensor, "batch 2"]:
    """(width, height) in cells of the part of each map that shows the image."""
    # images fill the top left corner, so the first row and column give the size
    return torch.stack((mask[:, 0, :].sum(1, dtype=dtype), mask[:, :, 0].sum(1, dtype=dtype)), dim=-1)


def cell_centres(height: int, width: int, like: Tensor) -> Float[Tensor, "cells 2"]:
    """(x, y) of the centre of each cell, in cells, row by row."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) + 0.5,
        torch.arange(width, dtype=like.dtype, device=like.device) + 0.5,
        indexing="ij",
    )
    return torch.stack((x.flatten(), y.flatten()), dim=-1)


def encoder_reference_points(
    shapes_hw: ShapesHw, valid_wh: Float[Tensor, "batch levels 2"]
) -> Float[Tensor, "batch keys levels 2"]:
    """Each cell's centre as a fraction of every level's padded map (Deformable DETR, arXiv 2010.04159, section 4.1).

    Args:
        valid_wh: `valid_size_wh` of each level.
    """
    # per level [B, cells, 2], as fractions of the valid part
    centres = [cell_centres(*shape, valid_wh)[None] / valid_wh[:, i, None] for i, shape in enumerate(shapes_hw)]
    # [B, K, 1, 2] fractions of the image, times [B, 1, levels, 2] -> fractions of each padded level
    return torch.cat(centres, dim=1)[:, :, None] * valid_ratios(shapes_hw, valid_wh)[:, None]


def valid_ratios(shapes_hw: ShapesHw, valid_wh: Float[Tensor, "batch levels 2"]) -> Float[Tensor, "batch levels 2"]:
    """(width, height) of each level's valid part divided by the padded level's."""
    return valid_wh / size_wh(shapes_hw, valid_wh)


def size_wh(shapes_hw: ShapesHw, like: Tensor) -> Float[Tensor, "levels 2"]:
    """(width, height) of each level as a tensor; in an exported graph the numbers remain variables."""
    return torch.tensor([(width, height) for height, width in shapes_hw], dtype=like.dtype, device=like.device)


def proposal_boxes(
    shapes_hw: ShapesHw, valid_wh: Float[Tensor, "batch levels 2"], mask: Bool[Tensor, "batch keys"]
) -> tuple[Float[Tensor, "batch keys 4"], Bool[Tensor, "batch keys"]]:
    """One cxcywh_norm box per cell, centred on it, with sides of 0.05 on the first level, doubled on each next one.

    Deformable DETR, arXiv 2010.04159, appendix A.4 (two-stage).

    Returns:
        The boxes, and which may be proposed: those on the image whose four numbers all lie in (0.01, 0.99).
    """
    boxes = []
    for level, shape in enumerate(shapes_hw):
        centres = cell_centres(*shape, valid_wh)[None] / valid_wh[:, level, None]
        # the same width and height in every cell of a level; [B, cells, 4]
        boxes.append(torch.cat((centres, torch.full_like(centres, 0.05 * 2.0**level)), dim=-1))
    boxes_cxcywh_norm = torch.cat(boxes, dim=1)
    inside = ((boxes_cxcywh_norm > 0.01) & (boxes_cxcywh_norm < 0.99)).all(-1)
    return boxes_cxcywh_norm, inside & mask
