"""The loss of denoising queries: each knows its object, so nothing is matched (DN-DETR, arXiv 2203.01305)."""

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
    queries: DenoisingQueries,
    targets: PackedTargets,
    num_boxes: float | Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> dict[str, Float[Tensor, " layers"]]:
    """`loss_ce`, `loss_bbox` and `loss_giou` of every layer, over `num_boxes` and the number of groups.

    A copy is wanted on the tokens of its object's true class and on its box, a decoy on no token. Padding adds nothing,
    nor do tokens of classes of which the image may show objects that are not annotated.

    Args:
        logits: finite, padded tokens too.
        token_mask: true on valid tokens.
    """
    rows = queries.objects[..., None]
    wanted_tokens = targets.token_maps.gather(1, rows.expand(-1, -1, targets.class_maps.shape[-1])) > 0
    positive = (wanted_tokens & queries.positive[..., None]).expand_as(logits)
    counted = queries.real[..., None] & token_mask[:, None]
    if targets.unjudged_tokens is not None:
        counted = counted & (~targets.unjudged_tokens[:, None] | (wanted_tokens & queries.positive[..., None]))
    wanted_boxes = targets.boxes_cxcywh_norm.gather(1, rows.expand(-1, -1, 4)).expand_as(boxes_cxcywh_norm)
    sums = {"loss_ce": (sigmoid_focal_loss(logits, positive, alpha, gamma) * counted).sum((1, 2, 3))}
    for name, loss in (("loss_bbox", l1_loss), ("loss_giou", giou_loss)):
        sums[name] = torch.where(queries.positive, loss(boxes_cxcywh_norm, wanted_boxes), 0.0).sum((1, 2))
    return {name: total / (num_boxes * queries.groups) for name, total in sums.items()}
