"""Learned scales of the class scores, folded into weights that have them nowhere.

MMDetection can multiply the dot product of queries and tokens by `exp(log_scale)`, a parameter of each decoder layer
and of the encoder. transformers and IDEA-Research multiply by a constant. The text that the scores are made with leaves
the encoder through a layer norm, whose weight and bias can take the scale of the last decoder layer, if the decoder's
attention to that text divides by it. The encoder's queries come out of a layer norm of their own, before the box head.
So the scores that detect, and those that choose the proposals, are exact; only the other decoder layers keep a scale,
which nothing but their auxiliary losses sees.
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
    """The same detector, its last layer's and its encoder's scores with the constant of plain models.

    The `log_scale` tensors stay and hold what is left: for those two the logarithm of the constant, 0 for raw dot
    products. A detector that is folded already comes back as it is.

    Args:
        tensors: under transformers' file names.
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
    times(last, text_norm + "weight", text_norm + "bias")
    for layer in range(layers):
        attention = f"model.decoder.layers.{layer}.encoder_attn_text."
        times(-last, attention + "key.weight", attention + "value.weight")
    times(proposing - last, "model.enc_output_norm.weight", "model.enc_output_norm.bias")
    times(last - proposing, "model.encoder_output_bbox_embed.layers.0.weight")
    for name in heads:
        out[name] = tensors[name] - last
    out[encoder] = torch.full_like(tensors[encoder], constant)
    return out


def without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Folded tensors for a layout that has no place for what is left of the scales."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(LOG_SCALE)}


def _is_scaled(config: Any) -> bool:
    return bool(config.model_type == "mm-grounding-dino")
