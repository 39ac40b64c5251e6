"""What matched queries should say: the tokens of their objects, and how often they say something else."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.losses.packing import PackedTargets

NO_LOSS = -100.0  # a logit so negative that its focal loss as a negative is 0 in float32


def positive_tokens(
    queries: Int[Tensor, "layers batch objects"], token_maps: Float[Tensor, "batch objects tokens"], query_count: int
) -> Bool[Tensor, "layers batch queries tokens"]:
    """Focal targets: true on the class tokens of each matched query, whatever their weight in the positive map."""
    layers, batch, _ = queries.shape
    positive = token_maps.new_zeros(layers, batch, query_count + 1, token_maps.shape[-1], dtype=torch.bool)
    # [layers, B, objects] -> [layers, B, objects, L]; unmatched objects write to one row too many, cut off below
    rows = torch.where(queries < 0, query_count, queries)[..., None].expand(-1, -1, -1, token_maps.shape[-1])
    # an object's row of `token_maps` goes to its query's row
    positive.scatter_(2, rows, (token_maps > 0).expand(layers, -1, -1, -1))
    return positive[:, :, :query_count]


def without_unjudged(
    logits: Float[Tensor, "layers batch queries tokens"],
    positive: Bool[Tensor, "layers batch queries tokens"],
    unjudged_tokens: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "layers batch queries tokens"]:
    """Logits without loss or gradient where an unmatched query meets a class that may be in the image unannotated.

    Such a query may have found an object that nobody annotated (LVIS, arXiv 1908.03195). A query matched to an object
    of another class is a true negative and stays one.
    """
    unmatched = ~positive.any(-1, keepdim=True)  # [layers, B, Q, 1]
    return logits.masked_fill(unmatched & unjudged_tokens[:, None], NO_LOSS)


@torch.no_grad()
def class_error(
    logits: Float[Tensor, "batch queries tokens"], queries: Int[Tensor, "batch objects"], targets: PackedTargets
) -> Float[Tensor, ""]:
    """Percentage of matched queries whose best class is not their object's; 0 where nothing is matched.

    A class's score is the mean of its tokens' sigmoids.
    """
    rows = queries.clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])  # [B, objects] -> [B, objects, L]
    # [B, objects, L] @ [B, L, classes] -> [B, objects, classes]
    scores = logits.gather(1, rows).sigmoid() @ targets.class_maps.transpose(1, 2)
    # [B, objects, classes] -> [B, objects]; -1 is below every sigmoid
    best = scores.masked_fill(~targets.class_mask[:, None], -1.0).argmax(-1)
    matched = queries >= 0
    wrong = (matched & (best != targets.class_ids)).sum()
    return 100.0 * wrong / matched.sum().clamp(min=1)
