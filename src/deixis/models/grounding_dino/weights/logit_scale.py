"""Learned scales of the class scores, folded into other weights for layouts without them.

MMDetection can multiply the dot product of queries and tokens by `exp(log_scale)`, a parameter of each decoder layer
and of the encoder. transformers and IDEA-Research multiply by a constant. The scores' text features come from the
encoder's last layer norm, whose weight and bias can absorb the scale of the last decoder layer if the decoder's
attention to that text divides by it. The encoder's queries come from their own layer norm, before the box head.
So the scores of the detections, and those that choose the proposals, are exact. Only the other decoder layers keep a
scale, which affects nothing but their auxiliary losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deixis.models.grounding_dino.detector import has_learned_scale

LOG_SCALE = ".log_scale"


def fold_scales(tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The same detector, with the constant of plain models in its last layer's and its encoder's scores.

    The `log_scale` tensors stay and hold the remaining scale: for those two the logarithm of the constant, which is 0
    for raw dot products. A detector that is already folded is returned unchanged.

    Args:
        tensors: by their names in transformers' files.
    """
    if not has_learned_scale(config):
        return dict(tensors)
    out = dict(tensors)
    layers, constant = config.decoder_layers, -0.5 * math.log(config.d_model) if _is_scaled(config) else 0.0
    heads = [f"class_embed.{layer}{LOG_SCALE}" for layer in range(layers)]
    encoder = f"model.encoder_output_class_embed{LOG_SCALE}"
    last, proposing = float(tensors[heads[-1]]) - constant, float(tensors[encoder]) - constant

    def times(log_factor: float, *names: str) -> None:
        for name in names:
            out[name] = (out[name].double() * math.exp(log_factor)).to(out[name].dtype)

    text_norm = f"model.encoder.layers.{config.encoder_layers - 1}.text_enhancer_layer.layer_norm_after."
    times(last, text_norm + "weight", text_norm + "bias")  # all scores grow by exp(last)
    for layer in range(layers):
        attention = f"model.decoder.layers.{layer}.encoder_attn_text."
        # the decoder sees that text as before
        times(-last, attention + "key.weight", attention + "value.weight")
    # the rest of the encoder's own scale
    times(proposing - last, "model.enc_output_norm.weight", "model.enc_output_norm.bias")
    times(last - proposing, "model.encoder_output_bbox_embed.layers.0.weight")  # its boxes must not change
    for name in heads:
        out[name] = tensors[name] - last
    out[encoder] = torch.full_like(tensors[encoder], constant)
    return out


def without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Folded tensors without the remaining scales, for a layout that has none."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(LOG_SCALE)}


def _is_scaled(config: Any) -> bool:
    return bool(config.model_type == "mm-grounding-dino")
