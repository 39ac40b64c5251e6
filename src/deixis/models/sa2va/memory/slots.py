"""Where and when everything lies that SAM 2 remembers: memories and pointers as tokens with their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deixis.models.sa2va.sam_protocol import SamWithMemory

SINE_BASE = 10_000


def places(
    sam: SamWithMemory, coarse: Tensor, spatial: Sequence[tuple[int, Tensor]]
) -> tuple[Float[Tensor, "cells c"], Float[Tensor, "cells c"]]:
    """Memories one after another, and where and when each cell is."""
    encoder = sam.memory_encoder
    grid = coarse.new_empty(1, spatial[0][1].shape[1], *coarse.shape[2:])
    where = positions(encoder.position_encoding, grid)  # [cells, c]
    when = sam.memory_temporal_positional_encoding[:, 0]  # [num_maskmem, 1, c]
    # Prompted frames are 0 frames ago and take the last row.
    places = [where + when[ago - 1].to(where.dtype) for ago, _ in spatial]
    return torch.cat([memory.to(coarse.dtype) for _, memory in spatial]), torch.cat(places)


def pointer_tokens(
    sam: SamWithMemory, coarse: Tensor, pointers: Sequence[tuple[int, Tensor]]
) -> tuple[Float[Tensor, "tokens c"], Float[Tensor, "tokens c"]]:
    """Pointers cut into tokens of the memory's width, and when each was."""
    width = int(sam.mem_dim)
    if not pointers:
        return coarse.new_zeros(0, width), coarse.new_zeros(0, width)
    stacked = torch.stack([pointer for _, pointer in pointers]).to(coarse.dtype)
    pieces = max(1, stacked.shape[1] // width)  # a pointer of 256 channels is 4 tokens of 64
    if sam.config.enable_temporal_pos_encoding_for_object_pointers:
        most = float(sam.config.max_object_pointers_in_encoder - 1)
        # [pointers], in [0, 1]
        ago = torch.tensor([ago for ago, _ in pointers], device=coarse.device, dtype=torch.float32) / most
        when = sam.temporal_positional_encoding_projection_layer(_sine(ago, stacked.shape[1]).to(coarse.dtype))
    else:
        when = stacked.new_zeros(len(stacked), width)  # SAM 2.0: pointers have no time
    return stacked.reshape(-1, width), when.repeat_interleave(pieces, dim=0)  # [pointers * pieces, c] each


def _sine(values: Float[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    half = torch.arange(width // 2, device=values.device, dtype=torch.float32)
    # [n, width / 2]; neighbours share a wavelength, as in Meta's code
    waves = values[:, None] / SINE_BASE ** (2 * (half // 2) / (width // 2))
    return torch.cat([waves.sin(), waves.cos()], dim=1)


def positions(encoding: Any, grid: Tensor) -> Float[Tensor, "cells c"]:
    positions: Tensor = encoding(grid[:1].shape, grid.device, grid.dtype)
    return positions[0].flatten(1).T
