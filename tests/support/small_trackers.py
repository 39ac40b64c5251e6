"""SAM 2 with its memory in a few hundred thousand random numbers, and squares that move."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import Sam2VideoModel

from deixis.models.sa2va import Sa2vaBundle, init_sa2va
from deixis.models.sa2va.small import (
    small_chat_tokenizer,
    small_memory_config,
    small_sam_config,
    small_vlm_config,
)

SIDE = 64
WORDS = ("red", "blue", "circle", "square")


def video_config(**changes: Any) -> Any:
    """SAM 2 at 64 px: features of 4 x 4 cells, masks of 16 x 16."""
    image = small_sam_config(SIDE, channels=128, widths=(8, 16, 24, 32), blocks=(1, 1, 2, 1))
    return small_memory_config(image, **{"layers": 2, **changes})


def random_video_sam(seed: int = 0, score_shift: float = 0.0, **changes: Any) -> Any:
    """Random weights everywhere, also where training starts at zero; in evaluation mode.

    Args:
        score_shift: added to the object scores.
    """
    torch.manual_seed(seed)
    sam = Sam2VideoModel(video_config(**changes)).eval()
    shake(sam)
    with torch.no_grad():
        sam.mask_decoder.pred_obj_score_head.proj_out.bias += score_shift
    return sam


def shake(module: torch.nn.Module) -> None:
    """Noise on every weight: what starts at zero would hide mistakes."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def tiny_tracker(seed: int = 0, behaviour: Any = "deixis") -> Sa2vaBundle:
    """A segmenter whose SAM 2 has a memory; 64 px tiles, in evaluation mode."""
    torch.manual_seed(seed)
    tokenizer = small_chat_tokenizer(WORDS)
    vlm = small_vlm_config(tokenizer, tile_px=64, vision_width=32, vision_layers=2, text_width=64, text_layers=2)
    bundle = init_sa2va(vlm, video_config(), tokenizer, behaviour=behaviour)
    shake(bundle.model)
    bundle.model.eval()
    return bundle


def random_clip(frames: int, seed: int = 0) -> Float[Tensor, "frames 3 64 64"]:
    """Noise, as SAM 2 takes it."""
    return torch.randn(frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def square_masks(*corners: tuple[int, int], size: int = 20) -> Bool[Tensor, "objects 64 64"]:
    """One square an object, by (top, left)."""
    masks = torch.zeros(len(corners), SIDE, SIDE, dtype=torch.bool)
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[top : top + size, left : left + size] = True
    return masks
