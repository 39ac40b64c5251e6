"""Qwen3-VL (arXiv 2511.21631), as in Sa2VA-Qwen3-VL-2B and -4B.

Its vision encoder also gives features of earlier layers, which are added to the image tokens after the first layers of
the language model (DeepStack, arXiv 2406.04334). They travel beside the embeddings: an image token is
`[embedding, features for layer 0, for layer 1, ...]`, and text has zeros in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from deixis.batch_records import Grid
from deixis.models.sa2va.families import qwen
from deixis.models.sa2va.families.family import Family

HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def vision(
    vlm: Any, squares: Float[Tensor, "squares 3 side side"], grids: Sequence[Grid]
) -> Float[Tensor, "squares tokens wide"]:
    """The vision encoder with its mergers: of the last layer, then of the earlier ones."""
    pixels, shapes = qwen.patches_of(vlm, squares, grids)
    seen = vlm.model.visual(pixels, grid_thw=shapes)
    # [all tokens, hidden * (1 + later layers)]
    merged = torch.cat([seen.pooler_output, *seen.deepstack_features], dim=-1)
    return merged.reshape(len(squares), -1, merged.shape[-1])


def read(vlm: Any, embeddings: Float[Tensor, "batch tokens wide"], **options: Any) -> Any:
    """The language model, each of whose first layers is followed by its own part of the image features."""
    model = vlm.model.language_model
    own, *later = torch.split(embeddings, model.config.hidden_size, dim=-1)  # [batch, tokens, hidden] each
    if later:  # absent where a row goes on with text alone; text among images has zeros to add
        options["visual_pos_masks"] = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        # transformers takes them flat, at the places where the mask is true: here everywhere.
        options["deepstack_visual_embeds"] = [features.flatten(0, 1) for features in later]
    return model(inputs_embeds=own, **options)


QWEN3_VL = Family(
    "qwen3_vl",
    Qwen3VLForConditionalGeneration,
    qwen.VISION_MODULE,
    vision,
    qwen.PARTS,
    qwen.tiling,
    qwen.released_qwen("qwen3_vl", Qwen3VLConfig, HALVES),
    read=read,
    positions=qwen.positions,
    blocks=qwen.blocks,
)
