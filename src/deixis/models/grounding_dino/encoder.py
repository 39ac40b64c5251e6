"""The feature enhancer: image and text tokens refine each other, layer by layer (arXiv 2303.05499, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from deixis.models.grounding_dino.layers.attention import DeformableAttention, MultiheadAttention
from deixis.models.grounding_dino.layers.feed_forward import feed_forward
from deixis.models.grounding_dino.layers.fusion import FusionAttention
from deixis.models.grounding_dino.layers.positions import ShapesHw
from deixis.models.grounding_dino.layers.residual import add_dropped

FUSION_SCALE = 1e-4  # layer scale at the start: fusion enters a pretrained image encoder gently


class Pyramid(NamedTuple):
    """All levels of the image, flattened and joined.

    Attributes:
        tokens: features, (batch, keys, channels).
        mask: true on cells that show the image, (batch, keys).
        positions: sine embedding plus level embedding, (batch, keys, channels).
        shapes_hw: (height, width) of each level.
        valid_wh: cells of each level that show the image, (batch, levels, 2).
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
        """The mask, unless it is true everywhere."""
        return self.mask if self.padded else None

    def select(self, images: Sequence[int]) -> Pyramid:
        """The given images, in that order, any of them several times; nothing is copied where that is all of them."""
        if list(images) == list(range(len(self.tokens))):
            return self
        chosen = torch.tensor(list(images), device=self.tokens.device)
        tokens, mask, positions, valid_wh = (t[chosen] for t in (self.tokens, self.mask, self.positions, self.valid_wh))
        return Pyramid(tokens, mask, positions, self.shapes_hw, valid_wh)


class TextContext(NamedTuple):
    """The prompt beside the image.

    Attributes:
        tokens: projected features, (batch, tokens, channels).
        mask: true on real tokens, (batch, tokens).
        phrase_mask: who attends to whom, (batch, 1, tokens, tokens).
        positions: sine embedding of the place in the phrase, (batch, tokens, channels).
    """

    tokens: Tensor
    mask: Tensor
    phrase_mask: Tensor
    positions: Tensor


class DropPath(nn.Module):
    """Leave a residual branch out for whole samples at random (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Zero some samples and scale the others up, in training only."""
        if not self.training or self.probability == 0:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= self.probability
        return branch * keep / (1 - self.probability)


class FusionLayer(nn.Module):
    """Cross-attention in both directions, on normalised features, scaled by learned vectors."""

    def __init__(
        self, d_model: int, d_feedforward: int, heads: int, dropout: float, drop_path: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.layer_norm_vision = nn.LayerNorm(d_model, norm_eps)
        self.layer_norm_text = nn.LayerNorm(d_model, norm_eps)
        self.attn = FusionAttention(d_model, d_feedforward // 2, heads // 2, dropout)
        self.drop_path = DropPath(drop_path)
        self.vision_param = nn.Parameter(torch.full((d_model,), FUSION_SCALE))
        self.text_param = nn.Parameter(torch.full((d_model,), FUSION_SCALE))

    def forward(
        self,
        vision: Float[Tensor, "batch keys channels"],
        text: Float[Tensor, "batch tokens channels"],
        vision_mask: Bool[Tensor, "batch keys"] | None,
        text_mask: Bool[Tensor, "batch tokens"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """Image and text, each with what it gathered from the other."""
        vision = self.layer_norm_vision(vision)
        text = self.layer_norm_text(text)
        over_keys = None if vision_mask is None else vision_mask[:, None, None]
        scale = self.drop_path(self.vision_param.expand(len(vision), 1, -1))
        vision, to_text = self.attn(vision, text, over_keys, text_mask[:, None, None], scale)
        return vision, text + self.drop_path(self.text_param * to_text)


class TextEnhancerLayer(nn.Module):
    """A transformer layer on the text, each phrase by itself."""

    def __init__(
        self,
        d_model: int,
        d_feedforward: int,
        heads: int,
        attention_dropout: float,
        dropout: float,
        activation: str,
        norm_eps: float,
    ) -> None:
        super().__init__()
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
        placed = text + positions
        attended = self.self_attn(placed, placed, text, phrase_mask)
        text = self.layer_norm_before(add_dropped(text, attended, self.dropout, self.training))
        inner_dropout = self.dropout if self.training else 0.0
        hidden = feed_forward(text, self.fc1, self.fc2, self.activation, inner_dropout)
        out: Tensor = self.layer_norm_after(add_dropped(text, hidden, self.dropout, self.training))
        return out


class DeformableLayer(nn.Module):
    """A transformer layer on the image with deformable self-attention."""

    def __init__(
        self,
        d_model: int,
        d_feedforward: int,
        heads: int,
        levels: int,
        points: int,
        dropout: float,
        activation_dropout: float,
        activation: str,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(d_model, heads, levels, points)
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
        mask: Bool[Tensor, "batch keys"] | None,
        shapes_hw: ShapesHw,
    ) -> Float[Tensor, "batch keys channels"]:
        """The refined image tokens."""
        attended = self.self_attn(vision + positions, reference, vision, mask, shapes_hw)
        vision = self.self_attn_layer_norm(add_dropped(vision, attended, self.dropout, self.training))
        inner_dropout = self.activation_dropout if self.training else 0.0
        hidden = feed_forward(vision, self.fc1, self.fc2, self.activation, inner_dropout)
        out: Tensor = self.final_layer_norm(add_dropped(vision, hidden, self.dropout, self.training))
        return out


class EncoderLayer(nn.Module):
    """Fusion, then text by itself, then image by itself."""

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
        context: TextContext,
        reference: Float[Tensor, "batch keys levels 2"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """The refined image and text tokens."""
        vision, text = self.fusion_layer(vision, text, pyramid.needed_mask, context.mask)
        text = self.text_enhancer_layer(text, context.positions, context.phrase_mask)
        vision = self.deformable_layer(vision, pyramid.positions, reference, pyramid.needed_mask, pyramid.shapes_hw)
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
        """The image memory and the fused text."""
        vision, text = pyramid.tokens, context.tokens
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for layer in self.layers:
            if recompute:
                vision, text = checkpoint(layer, vision, text, pyramid, context, reference, use_reentrant=False)
            else:
                vision, text = layer(vision, text, pyramid, context, reference)
        return vision, text
