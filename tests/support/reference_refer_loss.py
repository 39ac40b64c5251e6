"""The segmenter's losses once more: float64, plain loops, one number at a time, straight from the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mask_losses(logits: list[float], targets: list[float]) -> tuple[float, float]:
    """(cross-entropy, naive Dice) of one mask."""
    ce = overlap = shares = wanted = 0.0
    for x, t in zip(logits, targets, strict=True):
        p = sigmoid(x)
        ce -= t * math.log(p) + (1 - t) * math.log(1 - p)
        overlap += p * t
        shares += p
        wanted += t
    return ce / len(logits), 1 - (2 * overlap + 1) / (shares + wanted + 1)


def iou(logits: list[float], targets: list[bool]) -> float:
    both = sum(1 for x, t in zip(logits, targets, strict=True) if x > 0 and t)
    either = sum(1 for x, t in zip(logits, targets, strict=True) if x > 0 or t)
    return both / either if either else 1.0


def value_at(grid: np.ndarray, x: float, y: float) -> float:
    """Bilinear, pixel centres at halves, 0 outside."""
    height, width = grid.shape
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    value = 0.0
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < height and 0 <= c < width:
                value += float(grid[r, c]) * (1 - abs(column - c)) * (1 - abs(row - r))
    return value


def language_ce(logits: np.ndarray, ids: np.ndarray) -> float:
    total = 0.0
    for row, wanted in zip(logits.tolist(), ids.tolist(), strict=True):
        total -= row[wanted] - math.log(sum(math.exp(x) for x in row))
    return total / max(len(ids), 1)


def losses(outputs: dict[str, np.ndarray], masks: np.ndarray, behaviour: str, squared: bool = False) -> dict[str, Any]:
    """All components over all pixels, weights 2.0 and 0.5 choosing the best of three."""
    sums = dict.fromkeys(["loss_mask", "loss_dice", "loss_iou", "loss_object", "iou"], 0.0)
    for n in range(len(masks)):
        target = masks[n].reshape(-1).tolist()
        candidates = [outputs["pred_masks"][n, k].reshape(-1).tolist() for k in range(3)]
        pairs = [mask_losses(c, target) for c in candidates]
        true = [iou(c, target) for c in candidates]
        predicted = outputs["pred_ious"][n].tolist()
        shown = predicted.index(max(predicted))
        if behaviour == "sa2va":
            sums["loss_mask"] += pairs[shown][0]
            sums["loss_dice"] += pairs[shown][1]
            sums["iou"] += true[shown]
            continue
        score = float(outputs["object_scores"][n])
        if any(target):
            weighted = [2.0 * ce + 0.5 * dice for ce, dice in pairs]
            best = weighted.index(min(weighted))
            sums["loss_mask"] += pairs[best][0]
            sums["loss_dice"] += pairs[best][1]
            gaps = [abs(p - t) for p, t in zip(predicted, true, strict=True)]
            sums["loss_iou"] += sum(g * g if squared else g for g in gaps) / 3
            sums["loss_object"] -= math.log(sigmoid(score))
            sums["iou"] += true[shown] if score > 0 else 0.0
        else:
            sums["loss_object"] -= math.log(1 - sigmoid(score))
            sums["iou"] += 0.0 if score > 0 else 1.0
    found = {name: value / max(len(masks), 1) for name, value in sums.items()}
    if behaviour == "sa2va":
        del found["loss_iou"], found["loss_object"]
    return found | {"loss_language": language_ce(outputs["label_logits"], outputs["label_ids"])}
