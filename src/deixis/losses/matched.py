"""What matched queries, and denoising queries, should say; and how often they say something else."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.data.detect.denoising import DenoisingQueries
from deixis.losses.boxes import giou_loss, l1_loss
from deixis.losses.focal import sigmoid_focal_loss
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


def denoising_losses(
    logits: Float[Tensor, "layers batch queries tokens"],
    boxes_cxcywh_norm: Float[Tensor, "layers batch queries 4"],
    token_mask: Bool[Tensor, "batch tokens"],
    *,
    queries: DenoisingQueries,
    targets: PackedTargets,
    num_boxes: float | Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> dict[str, Float[Tensor, " layers"]]:
    """`loss_ce`, `loss_bbox` and `loss_giou` per layer, divided by `num_boxes` and by the number of groups.

    A noised copy should predict its object's true class and box, a negative copy no class at all (DINO's contrastive
    denoising, arXiv 2203.03605, section 3.3). Padding contributes nothing. Neither do negatives on the tokens of
    classes that the image may show without an annotation.

    Args:
        logits: finite, also on padded tokens.
        token_mask: true on valid tokens.
    """
    rows = queries.objects[..., None]  # [B, Q, 1]: the object that each query was made from
    # [B, objects, L] -> [B, Q, L]
    wanted_tokens = targets.token_maps.gather(1, rows.expand(-1, -1, targets.class_maps.shape[-1])) > 0
    positive = (wanted_tokens & queries.positive[..., None]).expand_as(logits)  # [layers, B, Q, L]
    counted = queries.real[..., None] & token_mask[:, None]  # [B, Q, 1] & [B, 1, L] -> [B, Q, L]
    if targets.unjudged_tokens is not None:
        # a class that may be in the image unannotated counts only where it is the query's own
        counted = counted & (~targets.unjudged_tokens[:, None] | (wanted_tokens & queries.positive[..., None]))
    # [B, objects, 4] -> [B, Q, 4] -> [layers, B, Q, 4]
    wanted_boxes = targets.boxes_cxcywh_norm.gather(1, rows.expand(-1, -1, 4)).expand_as(boxes_cxcywh_norm)
    # [layers, B, Q, L] -> [layers]
    sums = {"loss_ce": (sigmoid_focal_loss(logits, positive, alpha, gamma=gamma) * counted).sum((1, 2, 3))}
    for name, loss in (("loss_bbox", l1_loss), ("loss_giou", giou_loss)):
        sums[name] = torch.where(queries.positive, loss(boxes_cxcywh_norm, wanted_boxes), 0.0).sum((1, 2))
    # each group holds a copy of every object, so their number is part of the divisor
    return {name: total / (num_boxes * queries.groups) for name, total in sums.items()}
