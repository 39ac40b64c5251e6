"""The outline of a region for the language model: one more token per region.

Region tokens say what the vision encoder saw inside a mask, not what form the mask has; an encoder that starts from
nothing had learnt no forms after thousands of steps. The outline itself, projected, says it at once: the spatial token
of Osprey (arXiv 2312.10032), here of the outline in its own square, with its box beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deixis.data.pixels.regions import OUTLINE_VALUES
from deixis.errors import ModelError


def spatial_projection(hidden: int) -> nn.Sequential:
    """From outlines to embeddings of the language model, with random weights (seed torch first)."""
    return nn.Sequential(nn.Linear(OUTLINE_VALUES, hidden), nn.GELU(), nn.Linear(hidden, hidden))


def spatial_tokens(
    projection: nn.Sequential, outlines: Sequence[Float[Tensor, "_ values"]]
) -> Float[Tensor, "all_regions hidden"]:
    """One token per region, image by image. Of no regions the result is empty and still has a graph: every process of a
    distributed run must touch the same parameters.

    Raises:
        ModelError: outlines of another length.
    """
    weight = next(projection.parameters())
    if found := [tuple(outline.shape) for outline in outlines if outline.shape[1] != OUTLINE_VALUES]:
        raise ModelError(f"outlines have {OUTLINE_VALUES} values each, got {found[0]}; see data.regions.region_outline")
    # [all regions, values] to [all regions, hidden]
    tokens: Tensor = projection(
        torch.cat([weight.new_zeros(0, OUTLINE_VALUES), *(outline.to(weight) for outline in outlines)])
    )
    return tokens
