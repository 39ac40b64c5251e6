"""The detector's loss once more: float64, NumPy, one number at a time, straight from the papers' formulas.

Written apart from `deixis.losses` and in another shape (loops over layers, images, objects and tokens; no padding,
no batching, no stable rearrangement), so that the two can only agree by both being right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Weights:
    """Cost weights and whether the class cost sums over all tokens."""

    cost_class: float
    cost_l1: float
    cost_giou: float
    sums_all_tokens: bool
    alpha: float = 0.25
    gamma: float = 2.0


WEIGHTS = {
    "grounding_dino": Weights(1, 5, 2, sums_all_tokens=False),
    "mm_grounding_dino": Weights(2, 5, 2, sums_all_tokens=True),
}


@dataclass(frozen=True)
class Truth:
    """An image's objects: boxes, and for each the list of its class's tokens."""

    boxes: list[list[float]]
    tokens: list[list[int]]


def truth_of(target: Any) -> Truth:
    """The objects of a deixis Target."""
    rows = target.positive_map.double().numpy()
    tokens = [np.flatnonzero(rows[int(class_id)]).tolist() for class_id in target.class_ids]
    return Truth(target.boxes_cxcywh_norm.double().tolist(), tokens)


def reference_losses(
    outputs: Any, targets: Any, preset: str, encoder_loss: str = "token", num_boxes: float | None = None
) -> dict[str, float]:
    """Every component by name, class_error left out."""
    truths = [truth_of(target) for target in targets]
    boxes = max(sum(len(truth.boxes) for truth in truths), 1) if num_boxes is None else num_boxes
    layers = {"": outputs, "_enc": outputs["enc_outputs"]}
    layers |= {f"_{i}": layer for i, layer in enumerate(outputs["aux_outputs"])}
    losses = {}
    for suffix, layer in layers.items():
        sums = [0.0, 0.0, 0.0]
        for image, truth in enumerate(truths):
            valid = np.flatnonzero(outputs["text_token_mask"][image].numpy())
            logits = layer["pred_logits"][image].detach().double().numpy()[:, valid]
            if suffix == "_enc" and encoder_loss == "objectness":
                logits = logits.max(axis=1, keepdims=True)
                truth = Truth(truth.boxes, [[0] for _ in truth.boxes])
            predicted = layer["pred_boxes"][image].detach().double().numpy()
            for which, value in enumerate(_image_losses(logits, predicted, truth, WEIGHTS[preset])):
                sums[which] += value
        for name, value in zip(("loss_ce", "loss_bbox", "loss_giou"), sums, strict=True):
            losses[name + suffix] = value / boxes
    return losses


def _image_losses(logits: np.ndarray, boxes: np.ndarray, truth: Truth, weights: Weights) -> tuple[float, float, float]:
    cost = np.array(
        [
            [pair_cost(logits[query], boxes[query], box, tokens, weights) for query in range(len(boxes))]
            for box, tokens in zip(truth.boxes, truth.tokens, strict=True)
        ]
    ).reshape(len(truth.boxes), len(boxes))
    pairs = dict(zip(*(found.tolist() for found in linear_sum_assignment(cost)[::-1]), strict=True))
    ce = l1 = overlap = 0.0
    for query, row in enumerate(logits):
        wanted = truth.tokens[pairs[query]] if query in pairs else []
        for token, logit in enumerate(row):
            ce += _focal(logit, token in wanted, weights)
    for query, which in pairs.items():
        l1 += sum(abs(a - b) for a, b in zip(boxes[query], truth.boxes[which], strict=True))
        overlap += 1 - giou(boxes[query], truth.boxes[which])
    return ce, l1, overlap


def _focal(logit: float, positive: bool, weights: Weights) -> float:
    """-alpha_t (1 - p_t)^gamma log(p_t), with log(p_t) = -log(1 + exp(-z)) where z is the logit of being right."""
    right = logit if positive else -logit
    alpha = weights.alpha if positive else 1 - weights.alpha
    if right < -700:  # exp would overflow: p_t is 0 and -log(p_t) is -z
        return alpha * -right
    p_t = 1 / (1 + math.exp(-right))
    return alpha * (1 - p_t) ** weights.gamma * math.log1p(math.exp(-right))


def pair_cost(logits: np.ndarray, box: Any, wanted: Any, tokens: list[int], weights: Weights) -> float:
    """The matching cost of one query and one object."""
    as_positive, as_negative = [], []
    for logit in logits:
        yes = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
        no = 1 / (1 + math.exp(logit)) if logit < 700 else 0.0
        as_positive.append(-weights.alpha * no**weights.gamma * math.log(yes + 1e-8))
        as_negative.append(-(1 - weights.alpha) * yes**weights.gamma * math.log(no + 1e-8))
    if weights.sums_all_tokens:
        others = [token for token in range(len(logits)) if token not in tokens]
        class_cost = sum(as_positive[t] for t in tokens) + sum(as_negative[t] for t in others)
    else:
        class_cost = sum(as_positive[t] - as_negative[t] for t in tokens) / len(tokens)
    l1 = sum(abs(a - b) for a, b in zip(box, wanted, strict=True))
    return weights.cost_class * class_cost + weights.cost_l1 * l1 - weights.cost_giou * giou(box, wanted)


def giou(a: Any, b: Any) -> float:
    """Generalised IoU of two cxcywh boxes; a ratio over nothing is 0."""
    left, right = sorted_edges(a[0], a[2]), sorted_edges(b[0], b[2])
    top, bottom = sorted_edges(a[1], a[3]), sorted_edges(b[1], b[3])
    inter = max(0.0, min(left[1], right[1]) - max(left[0], right[0]))
    inter *= max(0.0, min(top[1], bottom[1]) - max(top[0], bottom[0]))
    union = a[2] * a[3] + b[2] * b[3] - inter
    hull = (max(left[1], right[1]) - min(left[0], right[0])) * (max(top[1], bottom[1]) - min(top[0], bottom[0]))
    iou = inter / union if union > 1e-12 else 0.0
    return iou - ((hull - union) / hull if hull > 1e-12 else 0.0)


def sorted_edges(centre: float, side: float) -> tuple[float, float]:
    """Lower and upper edge."""
    return centre - side / 2, centre + side / 2
