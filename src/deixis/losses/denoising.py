"""The loss of denoising queries. Each knows its object, so nothing is matched (DN-DETR, arXiv 2203.01305)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deixis.data.detect.denoising import DenoisingQueries
from deixis.losses.boxes import giou_loss, l1_loss
from deixis.losses.focal import sigmoid_focal_loss
from deixis.losses.packing import PackedTargets


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
