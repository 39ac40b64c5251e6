"""The heads: boxes by a small perceptron, class scores by similarity to the text."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

PRIOR_PROBABILITY = 0.01  # initial class probability: most queries match no object (arXiv 1708.02002, section 3.3)

UPDATE_EPSILON = 1e-3
"""Epsilon of the inverse sigmoid when a decoder layer moves its boxes for the next one, in all authors' code."""
HEAD_EPSILONS = {"grounding-dino": 1e-3, "mm-grounding-dino": 1e-5}
"""Epsilon in the heads whose boxes are returned: IDEA-Research's and MMDetection's. transformers uses 1e-5 in all."""


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, *, depth: int) -> None:
        super().__init__()
        sizes = [d_in, *[d_hidden] * (depth - 1), d_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, hidden: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_out"]:
        """Apply the layers."""
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        out: Tensor = self.layers[-1](hidden)
        return out


class RawSimilarity(nn.Module):
    """Grounding DINO's class score: the dot product of a query with each token.

    Args:
        learned_scale: multiply by the exponential of a parameter, as in some models fine-tuned with MMDetection.
    """

    def __init__(self, learned_scale: bool = False) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(())) if learned_scale else None

    def forward(
        self, hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch queries tokens"]:
        """Logits, in float32 or float64: dot products reach hundreds, where bfloat16 has steps of 1 or more."""
        scores = _dot(hidden, text)
        return scores if self.log_scale is None else scores * self.log_scale.exp()


class ScaledSimilarity(nn.Module):
    """MM-Grounding-DINO's class score: the dot product divided by sqrt(width), plus a learned bias.

    Args:
        learned_scale: multiply by the exponential of a parameter instead of dividing by sqrt(width).
    """

    def __init__(self, learned_scale: bool = False) -> None:
        super().__init__()
        # sigmoid(bias) is the prior probability
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)))
        self.log_scale = nn.Parameter(torch.zeros(())) if learned_scale else None

    def forward(
        self, hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch queries tokens"]:
        """Logits, in float32 or float64."""
        scores = _dot(hidden, text)
        if self.log_scale is None:
            return scores / math.sqrt(hidden.shape[-1]) + self.bias
        return scores * self.log_scale.exp() + self.bias


def _dot(
    hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
) -> Float[Tensor, "batch queries tokens"]:
    # also under autocast: see `RawSimilarity`
    precision = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        out: Tensor = torch.bmm(hidden.to(precision), text.to(precision).transpose(1, 2))  # [B, Q, L]
    return out


def inverse_sigmoid(boxes: Float[Tensor, "*axes 4"], epsilon: float) -> Float[Tensor, "*axes 4"]:
    """log(x / (1 - x)) with both parts clamped to `epsilon` or more, as in the authors' code.

    Different from `torch.logit(eps=)`, which clamps x to [e, 1 - e]: at 0 that gives log(e / (1 - e)), this log(e). And
    between 0 and e this still depends on x, through 1 - x.
    """
    inside = boxes.clamp(0, 1)
    return (inside.clamp(min=epsilon) / (1 - inside).clamp(min=epsilon)).log()


def refine_boxes(
    delta: Float[Tensor, "batch queries 4"], reference: Float[Tensor, "batch queries 4"], epsilon: float
) -> Float[Tensor, "batch queries 4"]:
    """Move cxcywh_norm boxes by `delta` on the logit scale, in the precision of `reference`.

    Deformable DETR, arXiv 2010.04159, appendix A.4: box = sigmoid(delta + inverse_sigmoid(reference)).

    Args:
        epsilon: `UPDATE_EPSILON` or one of `HEAD_EPSILONS`. It matters only within that distance of 0 and 1: for boxes
            at the edge of the image, and for proposals of cells that are not allowed, whose boxes are all 1.
    """
    return (delta.to(reference.dtype) + inverse_sigmoid(reference, epsilon)).sigmoid()


def pad_logits(
    logits: Float[Tensor, "batch queries tokens"], token_mask: Bool[Tensor, "batch tokens"], length: int
) -> Float[Tensor, "batch queries {length}"]:
    """The logits with minus infinity on padded tokens, extended to `length` with minus infinity."""
    masked = logits.masked_fill(~token_mask[:, None], -torch.inf)  # [B, 1, L] over the queries
    padded: Tensor = nn.functional.pad(masked, (0, length - logits.shape[-1]), value=-torch.inf)
    return padded
