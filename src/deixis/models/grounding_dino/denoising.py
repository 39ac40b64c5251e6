"""Denoising queries beside the matching ones: what they start from, and who may look at whom."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deixis.data.detect.denoising import DenoisingQueries


def add_denoising(
    denoising: DenoisingQueries,
    queries: Float[Tensor, "batch matching channels"],
    start_cxcywh_norm: Float[Tensor, "batch matching 4"],
    text: Float[Tensor, "batch tokens channels"],
) -> tuple[
    Float[Tensor, "batch queries channels"], Float[Tensor, "batch queries 4"], Bool[Tensor, "batch 1 queries queries"]
]:
    """(queries, where they start, which attend to which), the denoising ones in front.

    A denoising query's content is the mean text feature of the tokens of the class that it is told. These features are
    taken before any image is mixed in, where a phrase is encoded by itself: they depend on the class's name and the
    weights alone, as a row of a label embedding would, and need no weights of their own.

    Args:
        queries: the matching queries.
        text: the prompt's features, not fused with the image.
    """
    told = torch.bmm(denoising.label_maps.to(text.dtype), text).to(queries.dtype)
    start = denoising.boxes_cxcywh_norm.to(start_cxcywh_norm.dtype)
    return (
        torch.cat((told, queries), dim=1),
        torch.cat((start, start_cxcywh_norm), dim=1),
        denoising_mask(denoising.real, denoising.groups, queries.shape[1]),
    )


def denoising_mask(
    real: Bool[Tensor, "batch noised"], groups: int, matching: int
) -> Bool[Tensor, "batch 1 queries queries"]:
    """True where a query (row) may attend to another (column).

    Matching queries see only each other, for denoising ones hold the answers. These see the matching queries and their
    own group, except its padding (DN-DETR, section 4.4).
    """
    noised = real.shape[1]
    group = torch.arange(noised, device=real.device) // (noised // groups)
    visible = torch.zeros(len(real), noised + matching, noised + matching, dtype=torch.bool, device=real.device)
    visible[:, :noised, :noised] = (group[:, None] == group) & real[:, None]
    visible[:, :, noised:] = True
    return visible[:, None]
