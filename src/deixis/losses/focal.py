"""Sigmoid focal loss over tokens, and the same term in the matching cost (Lin et al., arXiv 1708.02002, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_EPSILON = 1e-8
"""Limits a matching cost to -log(1e-8) = 18.4. It is 0 in float16, so costs are computed in float32."""

CPU_CHUNK = 1 << 18
"""Numbers processed at once on a CPU: 1 MB per buffer, which stays in a core's cache."""


def sigmoid_focal_loss(
    logits: Float[Tensor, "*shape"], positive: Bool[Tensor, "*shape"], alpha: float = 0.25, *, gamma: float = 2.0
) -> Float[Tensor, "*shape"]:
    """Focal loss of each logit against a binary target, not reduced: FL = -alpha_t (1 - p_t)^gamma log(p_t).

    With z = x for negatives and z = -x for positives, 1 - p_t is sigmoid(z) and -log(p_t) is softplus(z). This form is
    finite, with finite gradients, for any finite logit.

    Args:
        logits: finite; select valid tokens first.
        positive: true where the token belongs to the query's object.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: how strongly easy tokens are down-weighted.

    >>> sigmoid_focal_loss(torch.tensor([0.0, 0.0]), torch.tensor([True, False]))
    tensor([0.0433, 0.1300])
    """
    wrong = torch.where(positive, -logits, logits)  # z: large where the prediction is wrong
    weight = torch.where(positive, alpha, 1 - alpha)
    return weight * wrong.sigmoid().pow(gamma) * F.softplus(wrong)


def focal_loss_sums(
    logits: Float[Tensor, "layers batch queries tokens"],
    positive: Bool[Tensor, "layers batch queries tokens"],
    token_mask: Bool[Tensor, "batch tokens"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, " layers"]:
    """`sigmoid_focal_loss` summed over the valid tokens of each layer.

    The same numbers in half the time and a fifth of the memory: the forward pass also writes the gradient, so nothing
    else is kept, and a CPU processes it in chunks that fit its cache.

    Args:
        logits: finite in float32, also on padded tokens, where their values do not matter.
        positive, alpha, gamma: as for `sigmoid_focal_loss`.
        token_mask: true on valid tokens; the others add nothing and get no gradient.
    """
    apply: Callable[..., Tensor] = _FocalLossSums.apply
    return apply(logits, positive, token_mask, alpha, gamma)


class _FocalLossSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, positive: Tensor, token_mask: Tensor, alpha: float, gamma: float) -> Tensor:
        layers, batch, queries, tokens = logits.shape
        images = layers * batch
        at_once = images if logits.is_cuda else max(CPU_CHUNK // max(queries * tokens, 1), 1)
        valid = token_mask.to(logits.dtype)[:, None].repeat(layers, 1, 1)  # [B, L] -> [layers * B, 1, L]
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        # layers and images as one axis, [layers * B, Q, L]; `gradient` is a view, filled in place
        whole = (logits.flatten(0, 1), positive.flatten(0, 1), valid, gradient.flatten(0, 1))
        # chunks of images: `sums` has one loss per image
        pieces = zip(*(torch.split(tensor, at_once) for tensor in whole), strict=True)
        sums = torch.cat(
            [_loss_and_gradient(x, y, mask, gradient=out, alpha=alpha, gamma=gamma) for x, y, mask, out in pieces]
        )
        ctx.save_for_backward(gradient)
        return sums.view(layers, batch).sum(1)  # [layers * B] -> [layers]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # d sum / d logit times the gradient of its layer's sum
        return gradient * upstream[:, None, None, None], None, None, None, None


def _loss_and_gradient(
    logits: Tensor, positive: Tensor, valid: Tensor, *, gradient: Tensor, alpha: float, gamma: float
) -> Tensor:
    """The summed loss of each image, `[images]`; the gradient is written to `gradient`.

    With s = sigmoid(z): d/dz [s^gamma softplus(z)] = s^gamma (gamma (1 - s) softplus(z) + s), and z = sign * logit.
    """
    sign = 1.0 - 2.0 * positive.to(logits.dtype)  # -1 on positives, 1 on negatives
    wrong = sign * logits
    sigmoid, softplus = wrong.sigmoid(), F.softplus(wrong)
    # 0.5 + sign * (0.5 - alpha) is alpha on positives and 1 - alpha on negatives; buffers are reused from here on
    weight = torch.mul(sign, 0.5 - alpha, out=wrong).add_(0.5).mul_(sigmoid.pow(gamma)).mul_(valid)
    torch.sub(1.0, sigmoid, out=gradient).mul_(softplus).mul_(gamma).add_(sigmoid).mul_(weight).mul_(sign)
    return weight.mul_(softplus).sum((1, 2))  # [images, Q, L] -> [images]


def focal_costs(
    logits: Float[Tensor, "*shape"], alpha: float = 0.25, gamma: float = 2.0
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The cost of predicting each token as positive, and as negative: the focal terms of the matching cost.

    1 - sigmoid(x) is computed as sigmoid(-x), which stays precise where sigmoid(x) rounds to 1.
    """
    yes, no = logits.sigmoid(), (-logits).sigmoid()  # p and 1 - p
    # eq. 5 for a positive and for a negative target
    as_positive = -alpha * no.pow(gamma) * (yes + LOG_EPSILON).log()
    as_negative = -(1 - alpha) * yes.pow(gamma) * (no + LOG_EPSILON).log()
    return as_positive, as_negative
