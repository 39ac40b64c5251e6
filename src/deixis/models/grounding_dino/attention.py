"""The three kinds of attention in the detector: dense, image-text fusion, and multi-scale deformable."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from deixis.models.grounding_dino.positions import ShapesHw
from deixis.ops.deformable_attention import multi_scale_deformable_attention


def split_heads(
    tokens: Float[Tensor, "batch tokens channels"], heads: int
) -> Float[Tensor, "batch {heads} tokens dim"]:
    """Give each head its own slice of the channels."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def join_heads(tokens: Float[Tensor, "batch heads tokens dim"]) -> Float[Tensor, "batch tokens heads*dim"]:
    """Undo `split_heads`."""
    return tokens.transpose(1, 2).flatten(2)


class MultiheadAttention(nn.Module):
    """Dense attention; `query`, `key`, `value` and `out_proj` are named as in transformers."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        keys: Float[Tensor, "batch keys channels"],
        values: Float[Tensor, "batch keys channels"],
        mask: Bool[Tensor, "batch 1 #queries keys"] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Attend where `mask` is true, everywhere without one."""
        attended = scaled_dot_product_attention(
            split_heads(self.query(queries), self.heads),
            split_heads(self.key(keys), self.heads),
            split_heads(self.value(values), self.heads),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out_proj(join_heads(attended))
        return out


class FusionAttention(nn.Module):
    """Image attends to text and text to image through one shared similarity (GLIP, arXiv 2112.03857, eq. 4).

    Both directions use the same projections, one as queries and the other as keys; a softmax does not change when
    the maximum is subtracted, so two fused attentions compute what the eager form does, without its
    `keys x tokens` matrices.
    """

    def __init__(self, d_model: int, embed_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.vision_proj = nn.Linear(d_model, embed_dim)
        self.text_proj = nn.Linear(d_model, embed_dim)
        self.values_vision_proj = nn.Linear(d_model, embed_dim)
        self.values_text_proj = nn.Linear(d_model, embed_dim)
        self.out_vision_proj = nn.Linear(embed_dim, d_model)
        self.out_text_proj = nn.Linear(embed_dim, d_model)

    def forward(
        self,
        vision: Float[Tensor, "batch keys channels"],
        text: Float[Tensor, "batch tokens channels"],
        vision_mask: Bool[Tensor, "batch 1 1 keys"],
        text_mask: Bool[Tensor, "batch 1 1 tokens"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """What the image gathers from the text, and the text from the image. Masks are true on real positions."""
        dropout = self.dropout if self.training else 0.0
        image_side = split_heads(self.vision_proj(vision), self.heads)
        text_side = split_heads(self.text_proj(text), self.heads)
        image_values = split_heads(self.values_vision_proj(vision), self.heads)
        text_values = split_heads(self.values_text_proj(text), self.heads)
        to_image = scaled_dot_product_attention(image_side, text_side, text_values, text_mask, dropout)
        to_text = scaled_dot_product_attention(text_side, image_side, image_values, vision_mask, dropout)
        return self.out_vision_proj(join_heads(to_image)), self.out_text_proj(join_heads(to_text))


class DeformableAttention(nn.Module):
    """Each query looks at a few learned places around its reference point on each level (arXiv 2010.04159, eq. 3)."""

    def __init__(self, d_model: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(d_model, heads * levels * points * 2)
        self.attention_weights = nn.Linear(d_model, heads * levels * points)
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        reference: Float[Tensor, "batch queries levels coordinates"],
        memory: Float[Tensor, "batch keys channels"],
        memory_mask: Bool[Tensor, "batch keys"],
        shapes_hw: ShapesHw,
    ) -> Float[Tensor, "batch queries channels"]:
        """Sample `memory`.

        Args:
            queries: with their position embeddings added.
            reference: (x, y) or (x, y, width, height) as fractions of each padded level.
            memory_mask: true on real positions; the others count as zero.
        """
        batch, count = queries.shape[:2]
        grid = (batch, count, self.heads, self.levels, self.points)
        offsets: Tensor = self.sampling_offsets(queries).view(*grid, 2)
        weights: Tensor = self.attention_weights(queries).view(batch, count, self.heads, -1).softmax(-1).view(grid)
        values: Tensor = self.value_proj(memory).masked_fill(~memory_mask[..., None], 0.0)
        values = values.view(batch, -1, self.heads, values.shape[-1] // self.heads)
        if reference.shape[-1] == 2:
            size_wh = reference.new_tensor([(width, height) for height, width in shapes_hw])
            locations = reference[:, :, None, :, None] + offsets / size_wh[:, None]
        else:
            boxes = reference[:, :, None, :, None]
            locations = boxes[..., :2] + offsets / self.points * boxes[..., 2:] * 0.5
        sampled = multi_scale_deformable_attention(values, shapes_hw, locations, weights)
        out: Tensor = self.output_proj(sampled)
        return out


def starting_offsets(heads: int, levels: int, points: int) -> Float[Tensor, " offsets"]:
    """Bias of `sampling_offsets` before training: head h looks in direction h, point p at p + 1 cells.

    Deformable DETR, arXiv 2010.04159, appendix A.4.
    """
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    distances = torch.arange(1, points + 1)
    grid = directions[:, None, None, :] * distances[None, None, :, None]
    return grid.expand(heads, levels, points, 2).flatten()
