"""Qwen2.5-VL as the segmenter's vision-language model (arXiv 2502.13923).

Qwen takes images of any size; here it is given square tiles, as InternVL is, of which each is an image to it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TILE_TOKENS_SIDE = 16
"""A tile has 16 × 16 tokens: 448 pixels with the released patches, as in InternVL."""


def qwen_vision(vlm: Any, tiles: Float[Tensor, "tiles 3 side side"]) -> Float[Tensor, "tiles tokens channels"]:
    """The vision encoder with its merger, which undoes the encoder's own order of windows."""
    config = vlm.config.vision_config
    patch, merge, frames = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
    count, channels, side, _ = tiles.shape
    blocks = side // patch // merge
    # Patches in the order in which they are merged, every picture as a film of equal frames.
    patches = tiles.reshape(count, channels, blocks, merge, patch, blocks, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    film = patches.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    grid = torch.tensor([[1, blocks * merge, blocks * merge]] * count, device=tiles.device)
    pixels = film.reshape(-1, channels * frames * patch * patch).to(vlm.model.visual.dtype)
    merged: Tensor = vlm.model.visual(pixels, grid_thw=grid).pooler_output
    return merged.reshape(count, blocks * blocks, -1)


def qwen_project(vlm: Any, features: Float[Tensor, "tiles tokens channels"]) -> Float[Tensor, "tiles tokens channels"]:
    """The features as they are: the merger is the projector."""
    return features


def qwen_positions(is_image: Bool[Tensor, "batch tokens"], tokens_per_tile: int) -> Int[Tensor, "3 batch tokens"]:
    """Time, row and column of every token. Text counts on in all three; a tile takes as many steps as it has rows.

    Args:
        is_image: true on the tokens of whole tiles.
    """
    side = round(tokens_per_tile**0.5)
    place = (is_image.cumsum(1) - 1) % tokens_per_tile
    ends = is_image & (place == tokens_per_tile - 1)
    steps = torch.where(is_image, ends * side, 1)
    start = steps.cumsum(1) - steps
    rows = torch.where(is_image, place // side, 0)
    columns = torch.where(is_image, place % side, 0)
    return torch.stack([start, start + rows, start + columns])


def qwen_tile_px(config: Any) -> int:
    """Side of a tile, in pixels."""
    return int(TILE_TOKENS_SIDE * config.vision_config.patch_size * config.vision_config.spatial_merge_size)
