"""The feature enhancer: image and text tokens refine each other, layer by layer (arXiv 2303.05499, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from deixis.models.grounding_dino.layers.attention import DeformableAttention, MultiheadAttention
from deixis.models.grounding_dino.layers.feed_forward import add_dropped, feed_forward
from deixis.models.grounding_dino.layers.fusion import FusionAttention
from deixis.models.grounding_dino.layers.positions import ShapesHw

FUSION_SCALE = 1e-4  # initial layer scale: at first, fusion hardly changes the features of a pretrained encoder


class Pyramid(NamedTuple):
    """All feature levels of a batch of images, flattened and concatenated.

    Attributes:
        tokens: features, (batch, keys, channels).
        mask: true on cells that show the image, (batch, keys).
        positions: sine embedding plus level embedding, (batch, keys, channels).
        shapes_hw: (height, width) of each level.
        valid_wh: (width, height) in cells of the part of each level that shows the image, (batch, levels, 2).
        padded: whether `mask` may be false anywhere.
    """

    tokens: Tensor
    mask: Tensor
    positions: Tensor
    shapes_hw: ShapesHw
    valid_wh: Tensor
    padded: bool = True

    @property
    def needed_mask(self) -> Tensor | None:
        """The mask, or None if it is true everywhere."""
        return self.mask if self.padded else None

    def select(self, images: Sequence[int]) -> Pyramid:
        """The given images, in that order, repeats allowed. All images in order are returned without a copy."""
        if list(images) == list(range(len(self.tokens))):
            return self
        chosen = torch.tensor(list(images), device=self.tokens.device)
        # each [B, ...] -> [images, ...]; the sides of the levels are those of the padded batch, and stay
        tokens, mask, positions, valid_wh = (t[chosen] for t in (self.tokens, self.mask, self.positions, self.valid_wh))
        # `padded` is true again, which is right for any images
        return Pyramid(tokens, mask, positions, self.shapes_hw, valid_wh)


class TextContext(NamedTuple):
    """The encoded prompts of a batch.

    Attributes:
        tokens: projected features, (batch, tokens, channels).
        mask: true on real tokens, (batch, tokens).
        phrase_mask: true where a token attends to another, (batch, 1, tokens, tokens).
        positions: sine embedding of the position in the phrase, (batch, tokens, channels).
    """

    tokens: Tensor
    mask: Tensor
    phrase_mask: Tensor
    positions: Tensor


class DropPath(nn.Module):
    """Drops a residual branch for random samples (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Zero random samples and scale the others up, so that the mean is unchanged; in training only."""
        if not self.training or self.probability == 0:
            return branch
        # [B, 1, ...]: one draw per sample
        keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= self.probability
        return branch * keep / (1 - self.probability or 1)  # with probability 1 nothing is kept


class FusionLayer(nn.Module):
    """Cross-attention in both directions on normalised features, scaled by learned vectors (GLIP, arXiv 2112.03857)."""

    def __init__(
        self, d_model: int, d_feedforward: int, heads: int, *, dropout: float, drop_path: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.layer_norm_vision = nn.LayerNorm(d_model, norm_eps)
        self.layer_norm_text = nn.LayerNorm(d_model, norm_eps)
        # as in the authors' code: half the channels of the feed-forward layers, half the heads
        self.attn = FusionAttention(d_model, d_feedforward // 2, heads // 2, dropout=dropout)
        self.drop_path = DropPath(drop_path)
        self.vision_param = nn.Parameter(torch.full((d_model,), FUSION_SCALE))
        self.text_param = nn.Parameter(torch.full((d_model,), FUSION_SCALE))

    def forward(
        self,
        vision: Float[Tensor, "batch keys channels"],
        text: Float[Tensor, "batch tokens channels"],
        vision_mask: Bool[Tensor, "batch keys"] | None,
        *,
        text_mask: Bool[Tensor, "batch tokens"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """Image and text tokens, each with the features attended to in the other."""
        # The residuals below are added to the normalised features, not to those before, as in the authors' code.
        vision = self.layer_norm_vision(vision)
        text = self.layer_norm_text(text)
        # [B, K] -> [B, 1, 1, K]: one mask for all heads and tokens
        over_keys = None if vision_mask is None else vision_mask[:, None, None]
        # drop path acts on the scale, [B, 1, C], which is much smaller than the image's branch, [B, K, C]
        scale = self.drop_path(self.vision_param.expand(vision.shape[0], 1, -1))
        vision, to_text = self.attn(vision, text, over_keys, text_mask=text_mask[:, None, None], scale=scale)
        # the image's branch was scaled and added inside the attention
        return vision, text + self.drop_path(self.text_param * to_text)


class TextEnhancerLayer(nn.Module):
    """A transformer layer on the text, in which each phrase attends only to itself."""

    def __init__(
        self,
        d_model: int,
        d_feedforward: int,
        heads: int,
        *,
        attention_dropout: float,
        dropout: float,
        activation: str,
        norm_eps: float,
    ) -> None:
        super().__init__()
        # half the heads and half the hidden channels of the image's layers, as in the fusion
        self.self_attn = MultiheadAttention(d_model, heads // 2, attention_dropout)
        self.fc1 = nn.Linear(d_model, d_feedforward // 2)
        self.fc2 = nn.Linear(d_feedforward // 2, d_model)
        self.layer_norm_before = nn.LayerNorm(d_model, norm_eps)
        self.layer_norm_after = nn.LayerNorm(d_model, norm_eps)
        self.activation = ACT2FN[activation]
        self.dropout = dropout

    def forward(
        self,
        text: Float[Tensor, "batch tokens channels"],
        positions: Float[Tensor, "batch tokens channels"],
        phrase_mask: Bool[Tensor, "batch 1 tokens tokens"],
    ) -> Float[Tensor, "batch tokens channels"]:
        """The enhanced text."""
        placed = text + positions  # positions for queries and keys, not for values
        attended = self.self_attn(placed, placed, text, mask=phrase_mask)
        # post-norm; the name is transformers' and means before the feed-forward
        text = self.layer_norm_before(add_dropped(text, attended, self.dropout, training=self.training))
        inner_dropout = self.dropout if self.training else 0.0
        hidden = feed_forward(text, self.fc1, self.fc2, activation=self.activation, activation_dropout=inner_dropout)
        out: Tensor = self.layer_norm_after(add_dropped(text, hidden, self.dropout, training=self.training))
        return out


class DeformableLayer(nn.Module):
    """A transformer layer on the image with deformable self-attention (arXiv 2010.04159)."""

    def __init__(
        self,
        d_model: int,
        d_feedforward: int,
        heads: int,
        *,
        levels: int,
        points: int,
        dropout: float,
        activation_dropout: float,
        activation: str,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(d_model, heads, levels, points=points)
        self.self_attn_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.fc1 = nn.Linear(d_model, d_feedforward)
        self.fc2 = nn.Linear(d_feedforward, d_model)
        self.final_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.activation = ACT2FN[activation]
        self.dropout = dropout
        self.activation_dropout = activation_dropout

    def forward(
        self,
        vision: Float[Tensor, "batch keys channels"],
        positions: Float[Tensor, "batch keys channels"],
        reference: Float[Tensor, "batch keys levels 2"],
        *,
        mask: Bool[Tensor, "batch keys"] | None,
        shapes_hw: ShapesHw,
    ) -> Float[Tensor, "batch keys channels"]:
        """The refined image tokens."""
        # [B, K, C]: every cell samples all levels; positions for the queries, not for the values sampled
        attended = self.self_attn(vision + positions, reference, vision, memory_mask=mask, shapes_hw=shapes_hw)
        vision = self.self_attn_layer_norm(add_dropped(vision, attended, self.dropout, training=self.training))
        inner_dropout = self.activation_dropout if self.training else 0.0
        hidden = feed_forward(vision, self.fc1, self.fc2, activation=self.activation, activation_dropout=inner_dropout)
        out: Tensor = self.final_layer_norm(add_dropped(vision, hidden, self.dropout, training=self.training))
        return out


class EncoderLayer(nn.Module):
    """Fusion, then self-attention in the text, then deformable self-attention in the image."""

    def __init__(self, fusion: FusionLayer, text_enhancer: TextEnhancerLayer, deformable: DeformableLayer) -> None:
        super().__init__()
        self.text_enhancer_layer = text_enhancer
        self.fusion_layer = fusion
        self.deformable_layer = deformable

    def forward(
        self,
        vision: Float[Tensor, "batch keys channels"],
        text: Float[Tensor, "batch tokens channels"],
        pyramid: Pyramid,
        *,
        context: TextContext,
        reference: Float[Tensor, "batch keys levels 2"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """The refined image and text tokens."""
        # fusion comes first, as in the authors' code: each side then refines what it saw of the other
        vision, text = self.fusion_layer(vision, text, pyramid.needed_mask, text_mask=context.mask)
        text = self.text_enhancer_layer(text, context.positions, context.phrase_mask)
        vision = self.deformable_layer(
            vision, pyramid.positions, reference, mask=pyramid.needed_mask, shapes_hw=pyramid.shapes_hw
        )
        return vision, text


class Encoder(nn.Module):
    """The stack of encoder layers."""

    def __init__(self, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.gradient_checkpointing = False

    def forward(
        self, pyramid: Pyramid, context: TextContext, reference: Float[Tensor, "batch keys levels 2"]
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """The encoded image (the decoder's memory) and the fused text."""
        # [B, K, C] and [B, L, C]
        vision, text = pyramid.tokens, context.tokens
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for layer in self.layers:
            # the reentrant variant takes no keyword arguments, and cuts the graph where no input has one
            run = partial(checkpoint, layer, use_reentrant=False) if recompute else layer
            vision, text = run(vision, text, pyramid, context=context, reference=reference)
        return vision, text
