"""What reads a hidden state: boxes by a small perceptron, class scores by similarity to the text."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

PRIOR_PROBABILITY = 0.01  # what a class score starts at: most queries see no object (focal loss, arXiv 1708.02002)


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, depth: int) -> None:
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
    """Grounding DINO's class score: the dot product with each token. No parameters."""

    def forward(
        self, hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch queries tokens"]:
        """Logits, in single precision at least: dot products reach hundreds, where bfloat16 steps by whole units."""
        return _dot(hidden, text)


class ScaledSimilarity(nn.Module):
    """MM-Grounding-DINO's class score: the dot product over the root of the width, plus a learned bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)))

    def forward(
        self, hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch queries tokens"]:
        """Logits, in single precision at least."""
        return _dot(hidden, text) / math.sqrt(hidden.shape[-1]) + self.bias


def _dot(
    hidden: Float[Tensor, "batch queries channels"], text: Float[Tensor, "batch tokens channels"]
) -> Float[Tensor, "batch queries tokens"]:
    precision = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        out: Tensor = torch.bmm(hidden.to(precision), text.to(precision).transpose(1, 2))
    return out


def refine_boxes(
    delta: Float[Tensor, "batch queries 4"], reference: Float[Tensor, "batch queries 4"]
) -> Float[Tensor, "batch queries 4"]:
    """Move cxcywh_norm boxes by `delta` on the logit scale, in the precision of `reference`."""
    return (delta.to(reference.dtype) + reference.logit(eps=1e-5)).sigmoid()


def pad_logits(
    logits: Float[Tensor, "batch queries tokens"], token_mask: Bool[Tensor, "batch tokens"], length: int
) -> Float[Tensor, "batch queries {length}"]:
    """Minus infinity on padded tokens and from the last token to `length`."""
    masked = logits.masked_fill(~token_mask[:, None], -torch.inf)
    padded: Tensor = nn.functional.pad(masked, (0, length - logits.shape[-1]), value=-torch.inf)
    return padded
