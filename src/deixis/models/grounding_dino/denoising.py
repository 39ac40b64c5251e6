"""Denoising queries next to the matching ones: their initial content and boxes, and the attention mask."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deixis.data.detect.denoising import DenoisingQueries


def add_denoising(
    denoising: DenoisingQueries,
    queries: Float[Tensor, "batch matching channels"],
    start_cxcywh_norm: Float[Tensor, "batch matching 4"],
    *,
    text: Float[Tensor, "batch tokens channels"],
) -> tuple[
    Float[Tensor, "batch queries channels"], Float[Tensor, "batch queries 4"], Bool[Tensor, "batch 1 queries queries"]
]:
    """(queries, initial boxes, attention mask), with the denoising queries first.

    A denoising query's content is the mean text feature of its (noised) class's tokens. These features come from before
    the fusion with the image, where a phrase is encoded by itself: they depend only on the class's name and the
    weights, like a row of DN-DETR's label embedding, and need no weights of their own.

    Args:
        queries: the matching queries.
        text: the prompt's features, not fused with the image.
    """
    # [B, noised, L] @ [B, L, C] -> [B, noised, C]; rows of the map sum to 1
    content = torch.bmm(denoising.label_maps.to(text.dtype), text).to(queries.dtype)
    start = denoising.boxes_cxcywh_norm.to(start_cxcywh_norm.dtype)
    return (
        torch.cat((content, queries), dim=1),  # [B, noised + matching, C]
        torch.cat((start, start_cxcywh_norm), dim=1),
        denoising_mask(denoising.real, denoising.groups, queries.shape[1]),
    )


def denoising_mask(
    real: Bool[Tensor, "batch noised"], groups: int, matching: int
) -> Bool[Tensor, "batch 1 queries queries"]:
    """True where a query (row) may attend to another (column).

    Matching queries attend only to each other, because denoising ones contain the answers. Those attend to the matching
    queries and to their own group, except its padding (DN-DETR, arXiv 2203.01305, section 4.4).
    """
    noised = real.shape[1]
    # groups lie one after another: the group of each denoising query, [noised]
    group = torch.arange(noised, device=real.device) // (noised // groups)
    visible = torch.zeros(len(real), noised + matching, noised + matching, dtype=torch.bool, device=real.device)
    visible[:, :noised, :noised] = (group[:, None] == group) & real[:, None]  # columns: real ones of the same group
    visible[:, :, noised:] = True
    return visible[:, None]  # one mask for all heads
