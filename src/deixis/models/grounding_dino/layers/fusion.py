"""Image-text fusion: attention in both directions at once, with a few small products in place of six large ones."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from deixis.models.grounding_dino.layers.attention import join_heads, split_heads
from deixis.models.linear import weight_and_bias


class FusionAttention(nn.Module):
    """Image attends to text and text to image through one shared similarity (GLIP, arXiv 2112.03857, eq. 4).

    Both directions use the same projections, one as queries and the other as keys. An image has thousands of keys and
    a prompt has tens of tokens, so the image's projections are folded into the text's: `(V W) . t` is `V . (W t)`. The
    three products `keys x channels x embed_dim` become three of `keys x channels x (heads * tokens)`, and nothing of
    the size `keys x embed_dim` is kept for the backward pass.
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
        vision_mask: Bool[Tensor, "batch 1 1 keys"] | None,
        text_mask: Bool[Tensor, "batch 1 1 tokens"],
        scale: Float[Tensor, "batch 1 channels"],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """The image with `scale` times what it gathers from the text; what the text gathers from the image.

        Args:
            vision_mask: true on real positions, as `text_mask` is; None where all are real.
        """
        side = split_heads(self.text_proj(text), self.heads)
        values = split_heads(self.values_text_proj(text), self.heads)
        maps = [weight_and_bias(layer) for layer in (self.vision_proj, self.values_vision_proj, self.out_vision_proj)]
        if None not in maps and text.shape[1] <= side.shape[-1]:
            known = [both for both in maps if both is not None]
            return self._folded(vision, side, values, vision_mask, text_mask, scale, known)
        probability = self.dropout if self.training else 0.0
        image_side = split_heads(self.vision_proj(vision), self.heads)
        image_values = split_heads(self.values_vision_proj(vision), self.heads)
        to_image = scaled_dot_product_attention(image_side, side, values, text_mask, probability)
        to_text = scaled_dot_product_attention(side, image_side, image_values, vision_mask, probability)
        gathered = self.out_vision_proj(join_heads(to_image))
        return vision + scale * gathered, self.out_text_proj(join_heads(to_text))

    def _folded(
        self,
        vision: Float[Tensor, "batch keys channels"],
        side: Float[Tensor, "batch heads tokens dim"],
        values: Float[Tensor, "batch heads tokens dim"],
        vision_mask: Bool[Tensor, "batch 1 1 keys"] | None,
        text_mask: Bool[Tensor, "batch 1 1 tokens"],
        scale: Float[Tensor, "batch 1 channels"],
        maps: list[tuple[Tensor, Tensor]],
    ) -> tuple[Float[Tensor, "batch keys channels"], Float[Tensor, "batch tokens channels"]]:
        """Both directions, from `maps`: weight and bias of the image's projection, of its values, and of its output."""
        (w_side, b_side), (w_values, b_values), (w_out, b_out) = maps
        heads, dim = self.heads, side.shape[-1]
        probes = (side @ w_side.view(heads, dim, -1)).flatten(1, 2)
        scores = _scores(probes, side @ b_side.view(heads, dim, 1), vision, dim)
        to_image = self._dropped(scores.masked_fill(~text_mask.transpose(2, 3), -torch.inf).softmax(2))
        offers = (values @ w_out.view(-1, heads, dim).permute(1, 2, 0)).flatten(1, 2)
        fused = self._added(vision, to_image.flatten(1, 2).transpose(1, 2), offers, b_out, scale)

        if vision_mask is not None:
            scores = scores.masked_fill(~vision_mask, -torch.inf)
        to_text = self._dropped(scores.softmax(3))
        seen = (to_text.flatten(1, 2) @ vision).view(len(vision), heads, -1, vision.shape[-1])
        # Without dropout every row of `to_text` sums to 1; the bias is inside the sum.
        share = to_text.sum(-1, keepdim=True) if self.training and self.dropout else 1.0
        seen = seen @ w_values.view(heads, dim, -1).transpose(1, 2) + share * b_values.view(heads, 1, dim)
        return fused, self.out_text_proj(join_heads(seen))

    def _added(
        self,
        vision: Float[Tensor, "batch keys channels"],
        shares: Float[Tensor, "batch keys probes"],
        offers: Float[Tensor, "batch probes channels"],
        bias: Float[Tensor, " channels"],
        scale: Float[Tensor, "batch 1 channels"],
    ) -> Float[Tensor, "batch keys channels"]:
        """`vision + scale * (shares @ offers + bias)`, where one product can do all of it, in one pass over the image.

        Without dropout a key's shares of each head sum to 1, so the bias may be handed out with the offers.
        """
        if torch.is_autocast_enabled(vision.device.type) or (self.training and self.dropout):
            return vision + scale * (shares @ offers + bias)
        return torch.baddbmm(vision, shares, (offers + bias / self.heads) * scale)

    def _dropped(self, attention: Float[Tensor, "batch heads tokens keys"]) -> Float[Tensor, "batch heads tokens keys"]:
        return dropout(attention, self.dropout, self.training)


def _scores(
    probes: Float[Tensor, "batch probes channels"],
    bias: Float[Tensor, "batch heads tokens 1"],
    vision: Float[Tensor, "batch keys channels"],
    dim: int,
) -> Float[Tensor, "batch heads tokens keys"]:
    """Scaled similarities of tokens and keys, in single precision at least, as fused attention has them inside."""
    precision = torch.promote_types(vision.dtype, torch.float32)
    with torch.autocast(vision.device.type, enabled=False):
        probes, start = probes.to(precision) * dim**-0.5, bias.flatten(1, 2).to(precision) * dim**-0.5
        flat = torch.baddbmm(start, probes, vision.to(precision).transpose(1, 2))
    return flat.view(*bias.shape[:3], -1)
