"""Box losses of matched pairs, pure functions with one loss per pair; and the divisor of a step's losses."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from deixis.geometry.boxes import cxcywh_to_xyxy, paired_generalized_box_iou


def l1_loss(
    predicted_cxcywh_norm: Float[Tensor, "*pairs 4"], wanted_cxcywh_norm: Float[Tensor, "*pairs 4"]
) -> Float[Tensor, "*pairs"]:
    """Sum of the absolute differences of the four coordinates, per pair (DETR, arXiv 2005.12872, section 3.1)."""
    return (predicted_cxcywh_norm - wanted_cxcywh_norm).abs().sum(-1)  # [*pairs, 4] -> [*pairs]


def giou_loss(
    predicted_cxcywh_norm: Float[Tensor, "*pairs 4"], wanted_cxcywh_norm: Float[Tensor, "*pairs 4"]
) -> Float[Tensor, "*pairs"]:
    """1 - GIoU per pair, in [0, 2] (arXiv 1902.09630, algorithm 1). Finite, with finite gradients, for empty boxes."""
    return 1 - paired_generalized_box_iou(cxcywh_to_xyxy(predicted_cxcywh_norm), cxcywh_to_xyxy(wanted_cxcywh_norm))


def boxes_per_process(count: int, device: torch.device) -> Float[Tensor, ""]:
    """The divisor of a step's losses: the boxes of all processes divided by the number of processes, at least 1.

    DDP averages gradients over processes. With this divisor the average equals that of one process on the joined
    batch. All processes must call it. It does not synchronise with the device.
    """
    total = torch.full((), float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total.clamp(min=1)
