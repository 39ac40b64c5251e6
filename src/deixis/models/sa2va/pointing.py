"""Prompts that point before they segment, for segmenters that start from nothing.

The mask decoder learns from masks alone where in an image a prompt belongs, and a fresh one does not get there in
thousands of steps. Where a segmenter points first, its prompt is compared with the features of each cell, the
comparison is trained by itself (`loss_point`), and its map is given to SAM 2 the way it takes a coarse mask.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deixis.models.sa2va.sam_protocol import Sam


def points_first(sam: Sam) -> bool:
    """Whether the segmenter's prompts point first: `points_first` of SAM 2's configuration."""
    return bool(getattr(sam.config, "points_first", False))


def point_logits(
    sam: Sam, prompts: Float[Tensor, "objects sam_channels"], coarse: Float[Tensor, "objects sam_channels h w"]
) -> Float[Tensor, "objects h w"]:
    """How well each cell suits a prompt: its features and its place, against the prompt.

    Args:
        coarse: what the mask decoder is to see of each object's image.
    """
    cells = coarse + sam.get_image_wide_positional_embeddings()  # [objects, channels, h, w]
    # Scaled as in attention (arXiv 1706.03762, eq. 1): the size of a sum over channels does not grow with their number.
    scaled = prompts.to(cells.dtype)[:, :, None, None] / math.sqrt(prompts.shape[1])
    logits: Tensor = (scaled * cells).sum(1)  # [objects, h, w]
    return logits


def as_mask_prompt(sam: Sam, logits: Float[Tensor, "objects h w"]) -> Float[Tensor, "objects sam_channels h w"]:
    """The map as SAM 2's dense prompt: of each object's cells the best counts 1, others by their odds to it."""
    # p / p of the best cell: the best counts 1 however many cells there are; a softmax's shares would shrink.
    shares = (logits.flatten(1) - logits.flatten(1).amax(1, keepdim=True)).exp().view(logits.shape)
    size = sam.prompt_encoder.mask_input_size
    # SAM 2 takes masks at four times the side of its coarse level, and halves them twice.
    enlarged = F.interpolate(shares[:, None], tuple(size), mode="bilinear", align_corners=False)
    dense: Tensor = sam.prompt_encoder.mask_embed(enlarged)  # [objects, 1, 4h, 4w] to [objects, channels, h, w]
    return dense


def where_pointed(
    sam: Sam, prompts: Float[Tensor, "objects sam_channels"] | None, coarse: Float[Tensor, "objects sam_channels h w"]
) -> Float[Tensor, "objects h w"] | None:
    """`point_logits` of prompts that point first; None where they do not, or where there are none."""
    return None if prompts is None or not points_first(sam) else point_logits(sam, prompts, coarse)


def dense_prompt(
    sam: Sam, points: Float[Tensor, "objects h w"] | None
) -> Float[Tensor, "objects_or_1 sam_channels _ _"]:
    """SAM 2's dense prompt: where the prompt points, or the embedding that says that there is no mask."""
    if points is not None:
        return as_mask_prompt(sam, points)
    blank: Tensor = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return blank
