"""Sigmoid focal loss over tokens, and its counterpart in the matching cost (Lin et al. 2017, equation 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

LOG_EPSILON = 1e-8
"""Bounds a matching cost at -log(1e-8) = 18.4; representable in float32, not in float16, so costs are float32."""


def sigmoid_focal_loss(
    logits: Float[Tensor, "*shape"],
    positive: Bool[Tensor, "*shape"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*shape"]:
    """Focal loss of each logit against a binary target, not reduced.

    With z the logit turned so that large means wrong (x for negatives, -x for positives), both cases are the one
    formula `weight * sigmoid(z)^gamma * softplus(z)`: finite, with finite gradients, for any finite logit.

    Args:
        logits: finite; choose valid tokens first.
        positive: true where the token belongs to the query's object.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: how strongly easy tokens are weighed down.
    """
    wrong = torch.where(positive, -logits, logits)
    weight = torch.where(positive, alpha, 1 - alpha)
    return weight * wrong.sigmoid().pow(gamma) * F.softplus(wrong)


def focal_costs(
    logits: Float[Tensor, "*shape"], alpha: float = 0.25, gamma: float = 2.0
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """What it would cost to call each token positive, and to call it negative; the terms of the matching cost.

    1 - sigmoid(x) is taken as sigmoid(-x), which keeps its precision where sigmoid(x) rounds to 1.
    """
    yes, no = logits.sigmoid(), (-logits).sigmoid()
    as_positive = -alpha * no.pow(gamma) * (yes + LOG_EPSILON).log()
    as_negative = -(1 - alpha) * yes.pow(gamma) * (no + LOG_EPSILON).log()
    return as_positive, as_negative
