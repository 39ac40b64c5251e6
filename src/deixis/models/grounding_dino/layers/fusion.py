"""Image-text fusion: attention in both directions, with a few small matrix products instead of six large ones."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from deixis.models.grounding_dino.layers.attention import join_heads, split_heads


def weight_and_bias(layer: Any) -> tuple[Float[Tensor, "d_out d_in"], Float[Tensor, " d_out"]] | None:
    """Weight and bias such that the layer's output is `x W^T + b`, in the graph of all its parameters.

    None if the layer has another form: not linear, no bias, an adapter that is not plain LoRA (arXiv 2106.09685), or
    one with input dropout in training.
    """
    if type(layer) is nn.Linear:
        return None if layer.bias is None else (layer.weight, layer.bias)
    base = getattr(layer, "base_layer", None)
    if type(base) is not nn.Linear or base.bias is None or not hasattr(layer, "lora_A"):
        return None
    weight = base.weight
    if not (layer.disable_adapters or layer.merged):
        for name in layer.active_adapters:
            if name in layer.lora_variant or (layer.training and getattr(layer.lora_dropout[name], "p", 0) > 0):
                return None
            if name in layer.lora_A:
                # W + alpha / rank * B A; [d_out, r] @ [r, d_in]
                weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return weight, base.bias


class FusionAttention(nn.Module):
    """Image attends to text and text to image with one shared similarity (GLIP, arXiv 2112.03857, eq. 4).

    Both directions use the same projections, one as queries and the other as keys. An image has thousands of keys and
    a prompt tens of tokens, so the image's projections are folded into the text's: `(V W) . t = V . (W t)`. Three
    products of size `keys x channels x embed_dim` become three of `keys x channels x (heads * tokens)`, and nothing of
    size `keys x embed_dim` is kept for the backward pass.
    """

    def __init__(self, d_model: int, embed_dim: int, heads: int, *, dropout: float) -> None:
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
        vision_mask: Bool[Tensor, "batch 1 1 keys"] | None,
        *,
        text_mask: Bool[Tensor, "batch 1 1 tokens"],
        scale: Float[Tensor, "batch 1 channels"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """The image plus `scale` times what it attends to in the text; and what the text attends to in the image.

        Args:
            vision_mask: true on real positions, like `text_mask`; None if all are real.
        """
        text_side = split_heads(self.text_proj(text), self.heads)  # [B, heads, L, dim]
        values = split_heads(self.values_text_proj(text), self.heads)
        maps = [weight_and_bias(layer) for layer in (self.vision_proj, self.values_vision_proj, self.out_vision_proj)]
        # folded only if it is less work: up to as many tokens as a head has channels
        if None not in maps and text.shape[1] <= text_side.shape[-1]:
            known = [both for both in maps if both is not None]
            return self._folded(
                vision, text_side, values, vision_mask=vision_mask, text_mask=text_mask, scale=scale, maps=known
            )
        probability = self.dropout if self.training else 0.0
        image_side = split_heads(self.vision_proj(vision), self.heads)
        image_values = split_heads(self.values_vision_proj(vision), self.heads)
        to_image = scaled_dot_product_attention(image_side, text_side, values, text_mask, probability)
        to_text = scaled_dot_product_attention(text_side, image_side, image_values, vision_mask, probability)
        gathered = self.out_vision_proj(join_heads(to_image))
        return vision + scale * gathered, self.out_text_proj(join_heads(to_text))

    def _folded(
        self,
        vision: Float[Tensor, "batch keys channels"],
        text_side: Float[Tensor, "batch heads tokens dim"],
        values: Float[Tensor, "batch heads tokens dim"],
        *,
        vision_mask: Bool[Tensor, "batch 1 1 keys"] | None,
        text_mask: Bool[Tensor, "batch 1 1 tokens"],
        scale: Float[Tensor, "batch 1 channels"],
        maps: list[tuple[Tensor, Tensor]],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """Both directions, from `maps`: weight and bias of the image's projection, of its values and of its output."""
        (w_side, b_side), (w_values, b_values), (w_out, b_out) = maps
        heads, dim = self.heads, text_side.shape[-1]
        # [B, heads, L, dim] @ [heads, dim, C] -> [B, heads * L, C]: each token as a query in the image's own channels
        folded_queries = (text_side @ w_side.view(heads, dim, -1)).flatten(1, 2)
        scores = _scores(folded_queries, text_side @ b_side.view(heads, dim, 1), vision, dim=dim)
        # [B, heads, L, K]: each key's softmax over the tokens (2), each token's over the keys (3)
        to_image = self._dropped(scores.masked_fill(~text_mask.transpose(2, 3), -torch.inf).softmax(2))
        # [B, heads, L, dim] @ [heads, dim, C] -> [B, heads * L, C]: each token's value after the image's output map
        folded_values = (values @ w_out.view(-1, heads, dim).permute(1, 2, 0)).flatten(1, 2)
        # [B, heads, L, K] -> [B, K, heads * L]
        fused = self._added(vision, to_image.flatten(1, 2).transpose(1, 2), folded_values, bias=b_out, scale=scale)

        if vision_mask is not None:
            scores = scores.masked_fill(~vision_mask, -torch.inf)
        to_text = self._dropped(scores.softmax(3))
        # [B, heads * L, K] @ [B, K, C] -> [B, heads, L, C]: first average the image, then project the few averages
        seen = (to_text.flatten(1, 2) @ vision).view(vision.shape[0], heads, -1, vision.shape[-1])
        # The values' bias is inside the weighted sum; without dropout the weights of a row sum to 1.
        share = to_text.sum(-1, keepdim=True) if self.training and self.dropout else 1.0
        # [B, heads, L, C] @ [heads, C, dim] -> [B, heads, L, dim]
        seen = seen @ w_values.view(heads, dim, -1).transpose(1, 2) + share * b_values.view(heads, 1, dim)
        return fused, self.out_text_proj(join_heads(seen))

    def _added(
        self,
        vision: Float[Tensor, "batch keys channels"],
        shares: Float[Tensor, "batch keys rows"],
        folded_values: Float[Tensor, "batch rows channels"],
        *,
        bias: Float[Tensor, " channels"],
        scale: Float[Tensor, "batch 1 channels"],
    ) -> Float[Tensor, "batch keys channels"]:
        """`vision + scale * (shares @ folded_values + bias)`, in one product and one pass where possible.

        Without dropout a key's shares sum to 1 in each head, so the bias can be added to the folded values.
        """
        if torch.is_autocast_enabled(vision.device.type) or (self.training and self.dropout):
            # under autocast `baddbmm` would round the image's features, the residual, to half precision
            return vision + scale * (shares @ folded_values + bias)
        return torch.baddbmm(vision, shares, (folded_values + bias / self.heads) * scale)

    def _dropped(self, attention: Float[Tensor, "batch heads tokens keys"]) -> Float[Tensor, "batch heads tokens keys"]:
        return dropout(attention, self.dropout, self.training)


def _scores(
    folded_queries: Float[Tensor, "batch rows channels"],
    bias: Float[Tensor, "batch heads tokens 1"],
    vision: Float[Tensor, "batch keys channels"],
    *,
    dim: int,
) -> Float[Tensor, "batch heads tokens keys"]:
    """Scaled similarities of tokens and keys, in float32 or float64, as in fused attention kernels."""
    precision = torch.promote_types(vision.dtype, torch.float32)
    with torch.autocast(vision.device.type, enabled=False):
        queries, start = folded_queries.to(precision) * dim**-0.5, bias.flatten(1, 2).to(precision) * dim**-0.5
        # the image's bias gives each row, [B, heads * L, 1], one number for all keys
        flat = torch.baddbmm(start, queries, vision.to(precision).transpose(1, 2))
    return flat.view(*bias.shape[:3], -1)  # [B, heads * L, K] -> [B, heads, L, K]
