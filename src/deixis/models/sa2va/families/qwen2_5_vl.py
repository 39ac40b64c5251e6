"""Qwen2.5-VL (arXiv 2502.13923), as in Sa2VA-Qwen2_5-VL-3B and -7B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from deixis.batch_records import Grid
from deixis.models.sa2va.families import qwen
from deixis.models.sa2va.families.family import Family

CLIP_STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def vision(
    vlm: Any, squares: Float[Tensor, "squares 3 side side"], grids: Sequence[Grid]
) -> Float[Tensor, "squares tokens hidden"]:
    """The vision encoder with its merger, which undoes the encoder's own order of windows."""
    pixels, shapes = qwen.patches_of(vlm, squares, grids)
    merged: Tensor = vlm.model.visual(pixels, grid_thw=shapes).pooler_output  # [all tokens, hidden]
    return merged.reshape(len(squares), -1, merged.shape[-1])  # a square has one token, or a tile's 256


QWEN2_5_VL = Family(
    "qwen2_5_vl",
    Qwen2_5_VLForConditionalGeneration,
    qwen.VISION_MODULE,
    vision,
    qwen.PARTS,
    qwen.tiling,
    qwen.released_qwen("qwen2_5_vl", Qwen2_5_VLConfig, CLIP_STATISTICS),
    positions=qwen.positions,
)
