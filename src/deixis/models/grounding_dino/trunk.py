"""The detector without its last heads: image and text in, queries and reference boxes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel

from deixis.models.grounding_dino.backbone import (
    Backbone,
    eval_if_frozen,
    input_projections,
    no_grad_if,
    project_levels,
)
from deixis.models.grounding_dino.decoder import Decoder
from deixis.models.grounding_dino.encoder import Encoder, Pyramid, TextContext
from deixis.models.grounding_dino.heads import UPDATE_EPSILON, Perceptron, refine_boxes
from deixis.models.grounding_dino.layers.positions import image_positions, proposal_boxes, sine_embedding, valid_size_wh
from deixis.models.grounding_dino.text import PromptCache, encode_tokens, phrase_attention


class Proposals(NamedTuple):
    """The encoder's highest-scoring cells, best first: language-guided query selection (arXiv 2303.05499, section 3.2).

    Attributes:
        logits: against the fused text, (batch, queries, tokens).
        boxes_cxcywh_norm: with their graph, (batch, queries, 4).
    """

    logits: Tensor
    boxes_cxcywh_norm: Tensor


class Trunk(nn.Module):
    """Backbones, encoder, query selection and decoder: the part that transformers calls `model`."""

    def __init__(
        self,
        backbone: Backbone,
        text_config: Any,
        encoder: Encoder,
        *,
        decoder: Decoder,
        class_head: nn.Module,
        d_model: int,
        levels: int,
        queries: int,
        norm_eps: float,
        position_temperature: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_proj_vision = input_projections(backbone.channels, levels, d_model)
        self.text_backbone = AutoModel.from_config(text_config, add_pooling_layer=False)
        self.text_projection = nn.Linear(text_config.hidden_size, d_model)
        self.query_position_embeddings = nn.Embedding(queries, d_model)
        self.encoder = encoder
        self.decoder = decoder
        self.level_embed = nn.Parameter(torch.zeros(levels, d_model))
        self.enc_output = nn.Linear(d_model, d_model)
        self.enc_output_norm = nn.LayerNorm(d_model, norm_eps)
        self.encoder_output_bbox_embed = Perceptron(d_model, d_model, 4, depth=3)
        self.encoder_output_class_embed = class_head
        self.d_model = d_model
        self.position_temperature = position_temperature
        self.prompt_cache = PromptCache()

    def encode_text(
        self, input_ids: Int[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
    ) -> TextContext:
        """The prompts' features, from the cache if the text encoder is frozen."""
        frozen = eval_if_frozen(self.text_backbone, self.training)
        # without gradients and dropout the features of a prompt do not change, so they may be cached
        constant = (frozen or not torch.is_grad_enabled()) and not self.text_backbone.training
        if constant and self.prompt_cache.capacity:
            hidden = self.prompt_cache.encode(self.text_backbone, input_ids, token_mask)
        else:
            with no_grad_if(frozen):
                hidden = encode_tokens(self.text_backbone, input_ids, token_mask)
        # [B, L, hidden] -> [B, L, C]; this trains where the encoder is frozen, so it comes after the cache
        tokens = self.text_projection(hidden)
        phrase_mask, places = phrase_attention(input_ids, token_mask)
        positions = sine_embedding(places.to(tokens.dtype), self.d_model, temperature=10000)
        return TextContext(tokens, token_mask, phrase_mask, positions)

    def encode_image(
        self, pixel_values: Float[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Pyramid:
        """The images' levels, flattened, with their masks and positions."""
        frozen = eval_if_frozen(self.backbone, self.training)
        with no_grad_if(frozen):
            maps = self.backbone(pixel_values)
        levels = project_levels(self.input_proj_vision, maps)
        # positions are counted in cells, and bfloat16 counts only to 256
        precision = torch.promote_types(levels[0].dtype, torch.float32)
        masks, positions = [], []
        for index, level in enumerate(levels):
            # nearest neighbour: [B, H, W] -> [B, h, w], true where a cell's pixel shows the image
            resized = nn.functional.interpolate(pixel_mask[None].to(precision), size=level.shape[-2:])[0]
            masks.append(resized.bool())
            place = image_positions(masks[-1], self.d_model, self.position_temperature, dtype=precision)
            positions.append(place.to(level.dtype) + self.level_embed[index])
        return Pyramid(
            # levels of [B, C, h, w] -> [B, K, C]
            tokens=torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1),
            mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            positions=torch.cat(positions, dim=1),
            shapes_hw=tuple((level.shape[-2], level.shape[-1]) for level in levels),
            valid_wh=torch.stack([valid_size_wh(mask, precision) for mask in masks], dim=1),
            padded=_may_be_padded(pixel_mask),
        )

    def propose(
        self,
        memory: Float[Tensor, "batch keys channels"],
        pyramid: Pyramid,
        text: Float[Tensor, "batch tokens channels"],
        *,
        text_mask: Bool[Tensor, "batch tokens"],
    ) -> Proposals:
        """The cells that score highest for any token, as many as there are queries (or cells, if there are fewer).

        All cells are scored without a graph, and only the chosen ones are computed again with one. So the loss on the
        returned proposals trains `enc_output`, its norm and the encoder's box head, at a fraction of the memory.
        """
        boxes, allowed = proposal_boxes(pyramid.shapes_hw, pyramid.valid_wh, pyramid.mask)
        candidates = memory.masked_fill(~allowed[..., None], 0.0)  # [B, K, C]
        with torch.no_grad():
            scores = self.encoder_output_class_embed(self._proposal_features(candidates), text)  # [B, K, L]
            # arXiv 2303.05499, eq. 1: the top cells by their best token
            best = scores.masked_fill(~text_mask[:, None], -torch.inf).amax(-1)  # [B, K, L] -> [B, K]
            count = min(self.query_position_embeddings.num_embeddings, best.shape[1])
            chosen = best.topk(count, dim=1).indices  # [B, K] -> [B, Q]
        usable = allowed.gather(1, chosen)[..., None]  # disallowed cells, scored as zeros, can be chosen too
        # [B, K, C] -> [B, Q, C]
        features = self._proposal_features(candidates.gather(1, chosen[..., None].expand(-1, -1, self.d_model)))
        # 0.5 has a finite inverse sigmoid; the result for such cells is replaced by 1 below, as in the authors' code
        start = boxes.gather(1, chosen[..., None].expand(-1, -1, 4)).where(usable, 0.5)
        # Allowed proposals have all numbers in (0.01, 0.99), so the epsilon has no effect here.
        moved = refine_boxes(self.encoder_output_bbox_embed(features), start, UPDATE_EPSILON).where(usable, 1.0)
        return Proposals(self.encoder_output_class_embed(features, text), moved)

    def _proposal_features(self, memory: Float[Tensor, "batch keys channels"]) -> Float[Tensor, "batch keys channels"]:
        out: Tensor = self.enc_output_norm(self.enc_output(memory))
        return out


def _may_be_padded(pixel_mask: Bool[Tensor, "batch height width"]) -> bool:
    """Whether any pixel may be padding; true without looking if that would be a synchronisation or a graph break."""
    if pixel_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return not bool(pixel_mask.all())
