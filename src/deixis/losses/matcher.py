"""Optimal assignment of queries to objects, for all layers of a step in one batched computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deixis.errors import OptionError, TrainingError
from deixis.geometry.boxes import cxcywh_to_xyxy, generalized_box_iou
from deixis.losses.focal import focal_costs
from deixis.losses.packing import PackedTargets

ClassCost = Literal["class_tokens", "all_tokens"]


class NonFiniteCostError(TrainingError):
    """A matching cost is NaN or inf, because the model's outputs are.

    Attributes:
        layer: name of the layer, such as `decoder layer 5` or `encoder`.
        image: position in the batch.
    """

    def __init__(self, layer: str, image: int, source: str) -> None:
        super().__init__(
            f"{source} (image {image} of the batch): the matching cost of the {layer} is not finite; "
            "look for NaN or inf in its pixels and in the weights, or lower the learning rate"
        )
        self.layer = layer
        self.image = image


class HungarianMatcher:
    """Assigns a query to each object so that the total cost is minimal (DETR, arXiv 2005.12872, eq. 1).

    The cost of a pair is `cost_class * focal + cost_l1 * |box - box| - cost_giou * GIoU`. The focal cost is either

    - `class_tokens`: positive minus negative cost, the mean over the tokens of the object's class (Grounding DINO), or
    - `all_tokens`: positive cost on the tokens of the class plus negative cost on all others, summed
      (MM-Grounding-DINO).

    Raises:
        OptionError: a weight is negative or all are zero.
    """

    def __init__(
        self,
        cost_class: float = 1.0,
        cost_l1: float = 5.0,
        cost_giou: float = 2.0,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_cost: ClassCost = "class_tokens",
    ) -> None:
        if min(cost_class, cost_l1, cost_giou) < 0 or max(cost_class, cost_l1, cost_giou) == 0:
            raise OptionError(
                f"matching costs must not be negative nor all zero, got {cost_class}, {cost_l1}, {cost_giou}"
            )
        self.cost_class, self.cost_l1, self.cost_giou = cost_class, cost_l1, cost_giou
        self.alpha, self.gamma, self.class_cost = alpha, gamma, class_cost

    @torch.no_grad()
    def __call__(
        self,
        logits: Float[Tensor, "layers batch queries tokens"],
        boxes_cxcywh_norm: Float[Tensor, "layers batch queries 4"],
        token_mask: Bool[Tensor, "batch tokens"],
        targets: PackedTargets,
        *,
        layer_names: Sequence[str],
    ) -> Int[Tensor, "layers batch objects"]:
        """The query of each object; -1 for padding, and for objects that remain when there are fewer queries.

        No query is assigned to two objects of an image; min(queries, objects) of them are matched. One
        synchronisation: the costs of all layers are copied to the host together.

        Raises:
            NonFiniteCostError: a cost of a real object is NaN or inf.
        """
        costs = self.costs(logits, boxes_cxcywh_norm, token_mask, targets).cpu().numpy()
        layers, batch, objects, _ = costs.shape
        matched = np.full((layers, batch, objects), -1, np.int64)
        for image, count in enumerate(targets.counts):
            for layer in range(layers):
                cost = costs[layer, image, :count]
                if not np.isfinite(cost).all():
                    raise NonFiniteCostError(layer_names[layer], image, targets.sources[image])
                object_rows, query_columns = linear_sum_assignment(cost)  # of [objects, queries]
                matched[layer, image, object_rows] = query_columns
        return torch.from_numpy(matched).to(logits.device, non_blocking=True)

    def costs(
        self,
        logits: Float[Tensor, "layers batch queries tokens"],
        boxes_cxcywh_norm: Float[Tensor, "layers batch queries 4"],
        token_mask: Bool[Tensor, "batch tokens"],
        targets: PackedTargets,
    ) -> Float[Tensor, "layers batch objects queries"]:
        """The cost of every pair of an object and a query in the same image and layer, in float32.

        Args:
            logits: finite; their values matter only where `token_mask` is true.
            boxes_cxcywh_norm: predicted boxes.
            token_mask: true on valid tokens.
            targets: the objects.
        """
        token_maps = targets.token_maps * token_mask[:, None]  # [B, objects, L]
        # [layers, B, 1, Q]: 0, or NaN where any token's logit is NaN or inf, also those that no object's class has
        nan_or_zero = 0 * logits.float().sum(-1)[:, :, None]
        if self.class_cost == "all_tokens":
            as_positive, as_negative = focal_costs(logits.float(), self.alpha, self.gamma)
            # Σ over class tokens of positive + Σ over other tokens of negative
            #   = Σ over class tokens of (positive - negative) + Σ over all tokens of negative
            others = (as_negative * token_mask[:, None]).sum(-1)[:, :, None]  # [layers, B, 1, Q]
            # [B, objects, L] @ [layers, B, L, Q] -> [layers, B, objects, Q]
            cost = (token_maps > 0).float() @ (as_positive - as_negative).transpose(-1, -2) + others
        else:
            logits, token_maps = _only_class_tokens(logits, token_maps)
            as_positive, as_negative = focal_costs(logits.float(), self.alpha, self.gamma)
            # [B, objects, L] @ [layers, B, L, Q] -> [layers, B, objects, Q]; rows of `token_maps` sum to 1: a mean
            cost = token_maps @ (as_positive - as_negative).transpose(-1, -2)
        # [layers, B, Q, 4] and [layers, B, objects, 4]
        predicted, wanted = boxes_cxcywh_norm.float(), targets.boxes_cxcywh_norm.expand(len(logits), -1, -1, -1)
        cost = self.cost_class * cost + self.cost_l1 * torch.cdist(wanted, predicted, p=1)
        cost = cost - self.cost_giou * generalized_box_iou(cxcywh_to_xyxy(wanted), cxcywh_to_xyxy(predicted))
        return cost + nan_or_zero


def _only_class_tokens(
    logits: Float[Tensor, "layers batch queries tokens"], token_maps: Float[Tensor, "batch objects tokens"]
) -> tuple[Float[Tensor, "layers batch queries used"], Float[Tensor, "batch objects used"]]:
    """Only the tokens of classes that an object in the image has: often a tenth of a full prompt.

    On a GPU all tokens: counting them would be a synchronisation, which costs more than the arithmetic.
    """
    if logits.is_cuda:
        return logits, token_maps
    used = (token_maps > 0).any(1).byte()  # [B, objects, L] -> [B, L]; topk takes no booleans
    # [B, used]: the used tokens first, then others to fill up, whose columns in `token_maps` are 0
    tokens = used.topk(int(used.sum(1).max())).indices
    return (
        logits.gather(-1, tokens[None, :, None].expand(*logits.shape[:3], -1)),
        token_maps.gather(-1, tokens[:, None].expand(-1, token_maps.shape[1], -1)),
    )
