"""Box losses of matched pairs. Pure functions, not reduced."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deixis.geometry.boxes import cxcywh_to_xyxy, paired_generalized_box_iou


def l1_loss(
    predicted_cxcywh_norm: Float[Tensor, "*pairs 4"], wanted_cxcywh_norm: Float[Tensor, "*pairs 4"]
) -> Float[Tensor, "*pairs"]:
    """Sum of the absolute differences of the four numbers of each pair (Carion et al. 2020, section 3.1)."""
    return (predicted_cxcywh_norm - wanted_cxcywh_norm).abs().sum(-1)


def giou_loss(
    predicted_cxcywh_norm: Float[Tensor, "*pairs 4"], wanted_cxcywh_norm: Float[Tensor, "*pairs 4"]
) -> Float[Tensor, "*pairs"]:
    """1 - generalised IoU of each pair, in [0, 2]; finite, with finite gradients, for boxes without area."""
    return 1 - paired_generalized_box_iou(cxcywh_to_xyxy(predicted_cxcywh_norm), cxcywh_to_xyxy(wanted_cxcywh_norm))
