"""What a configuration of a detector says, in lines for `deixis model info`."""

from __future__ import annotations

from typing import Any

from deixis.models.grounding_dino.detector import has_learned_scale, is_parallel
from deixis.models.grounding_dino.weights.recognise import swin_size

FLAVOURS = {
    "grounding-dino": "Grounding DINO: class scores are raw dot products",
    "mm-grounding-dino": "MM-Grounding-DINO or LLMDet: class scores are scaled dot products with a bias",
}

SCALES = (
    "of class scores, learned for each layer (log_scale); folders hold those that detect in other weights, and what is "
    "left as extra tensors, which transformers reports as unexpected and does not need"
)


def describe_config(config: Any) -> list[str]:
    """Flavour and sizes."""
    text = config.text_config
    maps = ", ".join(config.backbone_config.out_features)
    layers = f"{config.encoder_layers} encoder and {config.decoder_layers} decoder layers"
    counts = f"{config.num_queries} queries, {config.num_feature_levels} levels"
    scales = [f"scales       {SCALES}"] if has_learned_scale(config) else []
    scales += (
        ["decoding     in parallel, averaged; plain transformers decodes in sequence"] if is_parallel(config) else []
    )
    return [
        f"flavour      {FLAVOURS[config.model_type]}",
        *scales,
        f"backbone     {swin_size(config.backbone_config)}; maps of {maps}",
        f"text         BERT of {text.num_hidden_layers} layers, {text.hidden_size} wide, {text.vocab_size:,} tokens",
        f"detector     {config.d_model} wide, {layers}, {counts}",
    ]
