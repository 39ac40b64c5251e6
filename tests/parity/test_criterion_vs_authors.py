"""Our criterion beside MMDetection's and Open-GroundingDino's formulas, written anew: values and gradients.

Open-GroundingDino's: every token of a class counts alike in the matching cost (its mean), weights 1, 5, 2 there and
2, 5, 2 in the loss. MMDetection's (MM-Grounding-DINO): the cost of the class's tokens as positives and of all others as
negatives, summed, weights 2, 5, 2 there and 1, 5, 2 in the loss. Both: focal loss over the real tokens, divided by the
number of objects. What Open-GroundingDino gets wrong (a cost that is not finite becomes 0, the divisor is one process's
objects) is left out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detection_batches import layers_of, leaves_of, random_batch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deixis.batch_records import Target
from deixis.losses.detection import build_criterion

ALPHA, GAMMA = 0.25, 2.0
LOSS_WEIGHTS = {"grounding_dino": (2.0, 5.0, 2.0), "mm_grounding_dino": (1.0, 5.0, 2.0)}


def corners(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), dim=-1)


def pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    a, b = corners(boxes)[:, None], corners(others)[None]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return shared / union - (hull - union) / hull


def costs(preset: str, logits: Tensor, boxes: Tensor, target: Target, positive: Tensor) -> Tensor:
    """[queries, objects], of one picture's real tokens."""
    probability = logits.sigmoid()
    as_positive = -ALPHA * (1 - probability) ** GAMMA * (probability + 1e-8).log()
    as_negative = -(1 - ALPHA) * probability**GAMMA * (1 - probability + 1e-8).log()
    if preset == "grounding_dino":
        shares = positive / positive.sum(-1, keepdim=True)
        by_class = (as_positive - as_negative) @ shares.T
        weight = 1.0
    else:
        by_class = as_positive @ positive.T + as_negative @ (1 - positive).T
        weight = 2.0
    wanted = target.boxes_cxcywh_norm.double()
    distance = (boxes[:, None] - wanted[None]).abs().sum(-1)
    return weight * by_class + 5 * distance - 2 * pairwise_giou(boxes, wanted)


def authors_losses(preset: str, layer: dict[str, Tensor], mask: Tensor, targets: list[Target]) -> list[Tensor]:
    """[class, L1, GIoU] of one layer."""
    class_loss, distance, overlap, objects = [], [], [], 0
    for image, target in enumerate(targets):
        real = mask[image].nonzero()[:, 0]
        logits, boxes = layer["pred_logits"][image].double()[:, real], layer["pred_boxes"][image].double()
        positive = (target.positive_map[target.class_ids][:, real] > 0).double()
        with torch.no_grad():
            queries, which = linear_sum_assignment(costs(preset, logits, boxes, target, positive).numpy())
        labels = torch.zeros_like(logits)
        labels[queries] = positive[which]
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        right = (logits.sigmoid() * labels + (1 - logits.sigmoid()) * (1 - labels)).clamp(max=1)
        class_loss.append(((ALPHA * labels + (1 - ALPHA) * (1 - labels)) * (1 - right) ** GAMMA * entropy).sum())
        wanted = target.boxes_cxcywh_norm.double()[which]
        distance.append((boxes[queries] - wanted).abs().sum())
        overlap.append((1 - pairwise_giou(boxes[queries], wanted).diagonal()).sum())
        objects += len(target.class_ids)
    return [torch.stack(losses).sum() / max(objects, 1) for losses in (class_loss, distance, overlap)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("preset", LOSS_WEIGHTS)
def test_every_component_and_the_gradients(preset: str, seed: int) -> None:
    outputs, targets = random_batch(seed)
    criterion = build_criterion(preset)
    losses = criterion(outputs, targets)
    leaves = leaves_of(outputs)
    ours = torch.autograd.grad(criterion.total(losses), leaves)
    suffixes = ["", *(f"_{index}" for index in range(len(outputs["aux_outputs"]))), "_enc"]
    layers: list[Any] = [outputs, *outputs["aux_outputs"], outputs["enc_outputs"]]
    assert len(layers) == len(layers_of(outputs))
    total = []
    for suffix, layer in zip(suffixes, layers, strict=True):
        found = authors_losses(preset, layer, outputs["text_token_mask"], targets)
        for name, value, weight in zip(("loss_ce", "loss_bbox", "loss_giou"), found, LOSS_WEIGHTS[preset], strict=True):
            assert losses[name + suffix].item() == pytest.approx(value.item(), rel=2e-5, abs=1e-6)
            total.append(weight * value)
    for mine, theirs in zip(ours, torch.autograd.grad(torch.stack(total).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs.to(mine.dtype), atol=1e-6, rtol=1e-4)
