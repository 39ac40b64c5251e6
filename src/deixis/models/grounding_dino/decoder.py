"""The cross-modality decoder (Grounding DINO, arXiv 2303.05499, section 3.3).

Queries attend to each other, to the text and to the image, and refine their boxes.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from deixis.data.detect.denoising import DenoisingQueries
from deixis.models.grounding_dino.encoder import Pyramid
from deixis.models.grounding_dino.heads import UPDATE_EPSILON, Perceptron, refine_boxes
from deixis.models.grounding_dino.layers.attention import DeformableAttention, MultiheadAttention
from deixis.models.grounding_dino.layers.feed_forward import add_dropped, feed_forward
from deixis.models.grounding_dino.layers.positions import box_embedding, valid_ratios


class DecoderLayer(nn.Module):
    """Self-attention, attention to the text, deformable attention to the image, feed-forward."""

    def __init__(
        self,
        d_model: int,
        d_feedforward: int,
        heads: int,
        *,
        levels: int,
        points: int,
        attention_dropout: float,
        dropout: float,
        activation_dropout: float,
        activation: str,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, heads, attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.encoder_attn_text = MultiheadAttention(d_model, heads, attention_dropout)
        self.encoder_attn_text_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.encoder_attn = DeformableAttention(d_model, heads, levels, points=points)
        self.encoder_attn_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.fc1 = nn.Linear(d_model, d_feedforward)
        self.fc2 = nn.Linear(d_feedforward, d_model)
        self.final_layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.activation = ACT2FN[activation]
        self.dropout = dropout
        self.activation_dropout = activation_dropout

    def forward(
        self,
        hidden: Float[Tensor, "batch queries channels"],
        positions: Float[Tensor, "batch queries channels"],
        reference: Float[Tensor, "batch queries levels 4"],
        *,
        memory: Float[Tensor, "batch keys channels"],
        pyramid: Pyramid,
        text: Float[Tensor, "batch tokens channels"],
        text_mask: Bool[Tensor, "batch tokens"],
        query_mask: Bool[Tensor, "batch 1 queries queries"] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """The refined queries."""
        # positions are added to queries and keys, not to values (DETR, arXiv 2005.12872, appendix A.3)
        placed = hidden + positions
        attended = self.self_attn(placed, placed, hidden, mask=query_mask)
        hidden = self.self_attn_layer_norm(add_dropped(hidden, attended, self.dropout, training=self.training))

        attended = self.encoder_attn_text(hidden + positions, text, text, mask=text_mask[:, None, None])  # [B, 1, 1, L]
        hidden = self.encoder_attn_text_layer_norm(add_dropped(hidden, attended, self.dropout, training=self.training))

        attended = self.encoder_attn(
            hidden + positions, reference, memory, memory_mask=pyramid.needed_mask, shapes_hw=pyramid.shapes_hw
        )
        hidden = self.encoder_attn_layer_norm(add_dropped(hidden, attended, self.dropout, training=self.training))

        inner_dropout = self.activation_dropout if self.training else 0.0
        inner = feed_forward(hidden, self.fc1, self.fc2, activation=self.activation, activation_dropout=inner_dropout)
        out: Tensor = self.final_layer_norm(add_dropped(hidden, inner, self.dropout, training=self.training))
        return out


class Decoder(nn.Module):
    """Decoder layers with box refinement that looks forward twice (DINO, arXiv 2203.03605, section 3.5).

    Attributes:
        parallel: all layers but the first start from what the first one gives (FT-FSOD, arXiv 2603.28182).
    """

    def __init__(self, layers: list[DecoderLayer], d_model: int, query_dim: int, *, norm_eps: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(d_model, norm_eps)
        self.layers = nn.ModuleList(layers)
        # in: the sine embeddings of `query_dim` (4) coordinates, d_model / 2 channels each
        self.reference_points_head = Perceptron(query_dim // 2 * d_model, d_model, d_model, depth=2)
        self.d_model = d_model
        self.gradient_checkpointing = False
        self.parallel = False

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        reference: Float[Tensor, "batch queries 4"],
        memory: Float[Tensor, "batch keys channels"],
        *,
        pyramid: Pyramid,
        text: Float[Tensor, "batch tokens channels"],
        text_mask: Bool[Tensor, "batch tokens"],
        box_heads: nn.ModuleList,
        query_mask: Bool[Tensor, "batch 1 queries queries"] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decode.

        Args:
            reference: the queries' initial boxes, cxcywh_norm, detached.
            box_heads: one per layer; all but the last also move the reference for the next layer.
            query_mask: true where a query may attend to another; None lets all attend to all.

        Returns:
            For each layer the normalised queries, and the boxes that its own box head refines. These boxes keep their
            graph to the layer before, while the layer itself gets them detached. So the box loss of a layer also trains
            the layer before it, and no further (look forward twice).
        """
        ratios = valid_ratios(pyramid.shapes_hw, pyramid.valid_wh)
        ratios_whwh = torch.cat((ratios, ratios), dim=-1)[:, None]  # [B, levels, 2] -> [B, 1, levels, 4]
        # All layers get the same memory layout; otherwise torch.compile would compile the first one separately.
        # In sequence, layer i starts from `states[i]` and `references[i]`.
        states, outputs, references = [queries.contiguous()], [], [reference]
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for index, layer in enumerate(self.layers):
            # in parallel: the first layer from the start, all others from what it gives
            before = min(index, 1) if self.parallel else index
            start = references[before].detach()
            by_level = start[:, :, None] * ratios_whwh  # [B, Q, 4] -> [B, Q, levels, 4], over the padded levels
            # the position query of DAB-DETR: an MLP of the sine embedding of the box on the first level
            # [B, Q, 4] -> [B, Q, 4 * d_model / 2] -> [B, Q, C]
            place = box_embedding(by_level[:, :, 0], self.d_model // 2).to(states[before].dtype)
            positions = self.reference_points_head(place)
            run = partial(checkpoint, layer, use_reentrant=False) if recompute else layer
            hidden = run(
                states[before],
                positions,
                by_level,
                memory=memory,
                pyramid=pyramid,
                text=text,
                text_mask=text_mask,
                query_mask=query_mask,
            )
            states.append(hidden)
            # normalised for the heads only: the next layer goes on from `hidden`
            outputs.append(self.layer_norm(hidden))
            if self.parallel and index:
                # the later layers all refine the boxes that the first one gives
                references.append(references[1])
            elif index + 1 < len(self.layers):
                # DINO, arXiv 2203.03605, section 3.5: not detached here, but in the next layer's `start`
                # On the queries before the norm, as in the authors' code; the layer's own prediction comes after it.
                references.append(refine_boxes(box_heads[index](hidden), start, UPDATE_EPSILON))
        # in parallel the last layer appended one too many
        return outputs, references[: len(self.layers)]


def add_denoising(
    denoising: DenoisingQueries,
    queries: Float[Tensor, "batch matching channels"],
    start_cxcywh_norm: Float[Tensor, "batch matching 4"],
    *,
    text: Float[Tensor, "batch tokens channels"],
) -> tuple[
    Float[Tensor, "batch queries channels"], Float[Tensor, "batch queries 4"], Bool[Tensor, "batch 1 queries queries"]
]:
    """(queries, initial boxes, attention mask), with the denoising queries first.

    A denoising query's content is the mean text feature of its (noised) class's tokens. These features come from before
    the fusion with the image, where a phrase is encoded by itself: they depend only on the class's name and the
    weights, like a row of DN-DETR's label embedding, and need no weights of their own.

    Args:
        queries: the matching queries.
        text: the prompt's features, not fused with the image.
    """
    # [B, noised, L] @ [B, L, C] -> [B, noised, C]; rows of the map sum to 1
    content = torch.bmm(denoising.label_maps.to(text.dtype), text).to(queries.dtype)
    start = denoising.boxes_cxcywh_norm.to(start_cxcywh_norm.dtype)
    return (
        torch.cat((content, queries), dim=1),  # [B, noised + matching, C]
        torch.cat((start, start_cxcywh_norm), dim=1),
        denoising_mask(denoising.real, denoising.groups, queries.shape[1]),
    )


def denoising_mask(
    real: Bool[Tensor, "batch noised"], groups: int, matching: int
) -> Bool[Tensor, "batch 1 queries queries"]:
    """True where a query (row) may attend to another (column).

    Matching queries attend only to each other, because denoising ones contain the answers. Those attend to the matching
    queries and to their own group, except its padding (DN-DETR, arXiv 2203.01305, section 4.4).
    """
    noised = real.shape[1]
    # groups lie one after another: the group of each denoising query, [noised]
    group = torch.arange(noised, device=real.device) // (noised // groups)
    visible = torch.zeros(len(real), noised + matching, noised + matching, dtype=torch.bool, device=real.device)
    visible[:, :noised, :noised] = (group[:, None] == group) & real[:, None]  # columns: real ones of the same group
    # all queries see the matching ones
    visible[:, :, noised:] = True
    return visible[:, None]  # one mask for all heads
