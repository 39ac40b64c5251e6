"""Sigmoid focal loss over tokens, and its counterpart in the matching cost (Lin et al. 2017, equation 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_EPSILON = 1e-8
"""Bounds a matching cost at -log(1e-8) = 18.4; representable in float32, not in float16, so costs are float32."""

CPU_CHUNK = 1 << 18
"""Numbers handled at once on a CPU: 1 MB a buffer, which stays in the cache of a core."""


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


def focal_loss_sums(
    logits: Float[Tensor, "layers batch queries tokens"],
    positive: Bool[Tensor, "layers batch queries tokens"],
    token_mask: Bool[Tensor, "batch tokens"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, " layers"]:
    """`sigmoid_focal_loss` summed over the valid tokens of each layer.

    The same numbers in half the time and a fifth of the memory: the gradient is written in the forward pass, so that
    nothing else is kept, and a CPU works through it in pieces that fit its cache.

    Args:
        logits: finite in float32, padded tokens too; what they are there does not matter.
        positive: as for `sigmoid_focal_loss`.
        token_mask: true on valid tokens; the others add nothing and get no gradient.
        alpha: as for `sigmoid_focal_loss`.
        gamma: as for `sigmoid_focal_loss`.
    """
    apply: Callable[..., Tensor] = _FocalLossSums.apply
    return apply(logits, positive, token_mask, alpha, gamma)


class _FocalLossSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, positive: Tensor, token_mask: Tensor, alpha: float, gamma: float) -> Tensor:
        layers, batch, queries, tokens = logits.shape
        images = layers * batch
        at_once = images if logits.is_cuda else max(CPU_CHUNK // max(queries * tokens, 1), 1)
        valid = token_mask.to(logits.dtype)[:, None].repeat(layers, 1, 1)
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        whole = (logits.flatten(0, 1), positive.flatten(0, 1), valid, gradient.flatten(0, 1))
        pieces = zip(*(torch.split(tensor, at_once) for tensor in whole), strict=True)
        sums = torch.cat([_loss_and_gradient(x, y, mask, out, alpha, gamma) for x, y, mask, out in pieces])
        ctx.save_for_backward(gradient)
        return sums.view(layers, batch).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None, None, None], None, None, None, None


def _loss_and_gradient(
    logits: Tensor, positive: Tensor, valid: Tensor, gradient: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Sum of the losses of each image; the gradient is written to `gradient`.

    With s = sigmoid(z): d/dz [s^gamma softplus(z)] = s^gamma (gamma (1 - s) softplus(z) + s), and z = turn * logit.
    """
    turn = 1.0 - 2.0 * positive.to(logits.dtype)  # -1 on positives
    wrong = turn * logits
    sigmoid, softplus = wrong.sigmoid(), F.softplus(wrong)
    weight = torch.mul(turn, 0.5 - alpha, out=wrong).add_(0.5).mul_(sigmoid.pow(gamma)).mul_(valid)
    torch.sub(1.0, sigmoid, out=gradient).mul_(softplus).mul_(gamma).add_(sigmoid).mul_(weight).mul_(turn)
    return weight.mul_(softplus).sum((1, 2))


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
