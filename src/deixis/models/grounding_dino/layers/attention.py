"""Dense and multi-scale deformable attention."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from deixis.models.grounding_dino.layers.positions import ShapesHw, size_wh
from deixis.ops.deformable_attention import multi_scale_deformable_attention


def split_heads(
    tokens: Float[Tensor, "batch tokens channels"], heads: int
) -> Float[Tensor, "batch {heads} tokens dim"]:
    """Give each head its slice of the channels: [B, T, C] -> [B, heads, T, C / heads]."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def join_heads(tokens: Float[Tensor, "batch heads tokens dim"]) -> Float[Tensor, "batch tokens heads*dim"]:
    """The inverse of `split_heads`: [B, heads, T, dim] -> [B, T, heads * dim]."""
    return tokens.transpose(1, 2).flatten(2)


class MultiheadAttention(nn.Module):
    """Multi-head attention; `query`, `key`, `value` and `out_proj` are named as in transformers."""

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
        *,
        mask: Bool[Tensor, "batch 1 #queries keys"] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Attend where `mask` is true; None lets all queries attend to all keys."""
        # [B, heads, queries, dim]; scaled by 1 / sqrt(dim) inside
        attended = scaled_dot_product_attention(
            split_heads(self.query(queries), self.heads),
            split_heads(self.key(keys), self.heads),
            split_heads(self.value(values), self.heads),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out_proj(join_heads(attended))
        return out


class DeformableAttention(nn.Module):
    """Each query samples a few learned locations around its reference point on each level (arXiv 2010.04159, eq. 3).

    Attributes:
        implementation: of `multi_scale_deformable_attention`; None picks one by device.
    """

    implementation: str | None = None

    def __init__(self, d_model: int, heads: int, levels: int, *, points: int) -> None:
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
        *,
        memory_mask: Bool[Tensor, "batch keys"] | None,
        shapes_hw: ShapesHw,
    ) -> Float[Tensor, "batch queries channels"]:
        """Sample `memory`, the levels' features.

        Args:
            queries: with their position embeddings added.
            reference: (x, y) or (x, y, width, height) as fractions of each padded level.
            memory_mask: true on real positions; the others count as zero. None if all are real.
        """
        batch, count = queries.shape[:2]
        grid = (batch, count, self.heads, self.levels, self.points)
        # [B, Q, heads, levels * points * 2], and weights that sum to 1 over levels and points
        offsets: Tensor = self.sampling_offsets(queries).view(batch, count, self.heads, -1)
        weights: Tensor = self.attention_weights(queries).view(batch, count, self.heads, -1).softmax(-1).view(grid)
        values: Tensor = self.value_proj(memory)
        if memory_mask is not None:
            # after the projection: its bias would fill the padding again
            values = values.masked_fill(~memory_mask[..., None], 0.0)
        values = values.view(batch, -1, self.heads, values.shape[-1] // self.heads)  # [B, K, C] -> [B, K, heads, dim]
        # eq. 3: p + offset, both as fractions of the level
        # In the reference's precision, float32 or more: bfloat16's 8 bits do not tell the cells of a large level apart.
        start, step = self._start_and_step(reference, shapes_hw)
        # start + offsets * step, with [B, Q, 1, xy] broadcast over the heads -> [B, Q, heads, levels, points, 2]
        locations = torch.addcmul(start, offsets.to(start.dtype), step).view(*grid, 2)
        # [B, Q, heads * dim]
        sampled = multi_scale_deformable_attention(
            values, shapes_hw, locations, attention_weights=weights, implementation=self.implementation
        )
        out: Tensor = self.output_proj(sampled)
        return out

    def _start_and_step(
        self, reference: Float[Tensor, "batch queries levels coordinates"], shapes_hw: ShapesHw
    ) -> tuple[Float[Tensor, "batch queries 1 xy"], Float[Tensor, "... 1 xy"]]:
        """A query's sampling locations without offsets, and how far an offset of 1 moves them.

        For points an offset is in cells of its level. For boxes it is relative to the box: `0.5 / points` of its width
        and height (Deformable DETR, arXiv 2010.04159, appendix A.4). `xy` is levels * points * 2, as in the offsets.
        """

        def each_point(by_level: Tensor) -> Tensor:
            # [..., levels, 2] -> [..., 1, levels * points * 2]
            return by_level[..., None, :].expand(*by_level.shape[:-1], self.points, 2).flatten(-3)[..., None, :]

        # points in the encoder, boxes in the decoder
        if reference.shape[-1] == 2:
            return each_point(reference), each_point(1 / size_wh(shapes_hw, reference))
        return each_point(reference[..., :2]), each_point(reference[..., 2:] * (0.5 / self.points))


def starting_offsets(heads: int, levels: int, points: int) -> Float[Tensor, " offsets"]:
    """Initial bias of `sampling_offsets`: head h samples in direction h, point p at a distance of p + 1 cells.

    Deformable DETR, arXiv 2010.04159, appendix A.4.
    """
    angles = torch.arange(heads) * (2 * math.pi / heads)
    # [heads, 2]: unit vectors, evenly spaced
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)  # onto the unit square: the larger side is 1
    distances = torch.arange(1, points + 1)
    grid = directions[:, None, None, :] * distances[None, None, :, None]  # [heads, 1, points, 2]
    return grid.expand(heads, levels, points, 2).flatten()
