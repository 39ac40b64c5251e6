"""Recognising a checkpoint: a transformers configuration from the names and shapes of its tensors.

Three things cannot be seen in a checkpoint and are assumed to be as in every released one: deformable attention samples
four points per level, the text encoder's heads have 64 channels, and class scores with a bias are scaled
(MM-Grounding-DINO), those without are raw dot products (Grounding DINO). A learned scale can be seen. Any other wrong
assumption is detected when shapes are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, GroundingDinoConfig, MMGroundingDinoConfig, SwinConfig

from deixis.errors import ModelError
from deixis.models.grounding_dino.detector import LEARNED_SCALE, has_learned_scale, is_parallel
from deixis.models.grounding_dino.weights.key_tables import BLOCK, DECODER, ENCODER
from deixis.models.grounding_dino.weights.transformers_layout import BACKBONE
from deixis.models.weight_files import KeyTable

POINTS = 4
TEXT_HEAD_CHANNELS = 64
PRETRAINED_PIXELS = {7: 224, 12: 384}
"""Image size of Swin's pretraining, by window size; it only appears in the configuration."""

SWIN_SIZES = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24)): "T",
    (96, (2, 2, 18, 2), (3, 6, 12, 24)): "S",
    (128, (2, 2, 18, 2), (4, 8, 16, 32)): "B",
    (192, (2, 2, 18, 2), (6, 12, 24, 48)): "L",
}


def swin_size(backbone_config: Any) -> str:
    """The name of a Swin Transformer's size (arXiv 2103.14030): T, S, B or L, otherwise its width and depths.

    >>> swin_size(SwinConfig(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=12))
    'Swin-B, window 12'
    """
    width, depths = backbone_config.embed_dim, tuple(backbone_config.depths)
    size = SWIN_SIZES.get((width, depths, tuple(backbone_config.num_heads)))
    name = f"Swin-{size}" if size else f"Swin {width} wide, {'-'.join(map(str, depths))} deep"
    return f"{name}, window {backbone_config.window_size}"


class Names:
    """A checkpoint's tensors, looked up by the names used here."""

    def __init__(self, state: Mapping[str, Tensor], table: KeyTable, source: str) -> None:
        self._state = state
        self._table = table
        self._source = source

    def tensor(self, name: str) -> Tensor | None:
        """The stored tensor for a name; for one of three stacked tensors, the whole stack."""
        place = self._table.place(name)
        if place is None:
            return None
        return self._state.get(place.key, self._state.get(place.copy))

    def length(self, axis: int, *names: str) -> int:
        """The length of an axis of the first of these tensors that exists.

        Raises:
            ModelError: none of them exists.
        """
        for name in names:
            tensor = self.tensor(name)
            if tensor is not None and -tensor.ndim <= axis < tensor.ndim:
                return tensor.shape[axis]
        places = [place.key for name in names if (place := self._table.place(name))]
        raise ModelError(f"{self._source}: not a Grounding DINO checkpoint, or an incomplete one: missing {places[0]}")

    def count(self, *names: str) -> int:
        """One more than the largest number that, put into one of these names, gives a tensor, over gaps of up to 3."""
        present = 0
        for number in count():
            if any(self.tensor(name.replace("{}", str(number), 1)) is not None for name in names):
                present = number + 1
            elif number > present + 2:
                return present
        raise AssertionError("unreachable")


def config_of(names: Names) -> Any:
    """The configuration, a `GroundingDinoConfig` or an `MMGroundingDinoConfig`.

    Raises:
        ModelError: tensors that determine the configuration are missing.
    """
    # Each number comes from several tensors: a file that lacks one is still recognised, and `gather` lists the gaps.
    scaled = names.count("class_embed.{}.bias") or names.tensor("model.encoder_output_class_embed.bias") is not None
    levels = names.count("model.input_proj_vision.{}.0.weight", "model.input_proj_vision.{}.1.weight")
    encoder_layers = names.count(*_ends(ENCODER, "fusion_layer.vision_param", "deformable_layer.fc1.bias"))
    decoder_layers = decoder_layer_count(names)
    encoder_ends = (
        "deformable_layer.self_attn.attention_weights.weight",
        "deformable_layer.self_attn.attention_weights.bias",
    )
    decoder_ends = ("encoder_attn.attention_weights.weight", "encoder_attn.attention_weights.bias")
    values = {
        "backbone_config": _backbone_config(names),
        "text_config": _text_config(names),
        "num_feature_levels": levels,
        "d_model": names.length(-1, "model.level_embed", "model.enc_output_norm.weight"),
        "num_queries": names.length(0, "model.query_position_embeddings.weight"),
        "encoder_layers": encoder_layers,
        "decoder_layers": decoder_layers,
        "encoder_ffn_dim": names.length(
            0, *_first(ENCODER, "deformable_layer.fc1.bias", "deformable_layer.fc1.weight")
        ),
        "decoder_ffn_dim": names.length(0, *_first(DECODER, "fc1.bias", "fc1.weight")),
        # its rows are heads * levels * points
        "encoder_attention_heads": names.length(0, *_first(ENCODER, *encoder_ends)) // (levels * POINTS),
        "decoder_attention_heads": names.length(0, *_first(DECODER, *decoder_ends)) // (levels * POINTS),
        "encoder_n_points": POINTS,
        "decoder_n_points": POINTS,
    }
    if (
        names.count("class_embed.{}.log_scale")
        or names.tensor("model.encoder_output_class_embed.log_scale") is not None
    ):
        values |= {LEARNED_SCALE: True, "decoder_cls_embed_share": False}
    if scaled:
        own = {"decoder_bbox_embed_share": False, "decoder_cls_embed_share": False}
        return MMGroundingDinoConfig(**values | own)
    return GroundingDinoConfig(**values, decoder_bbox_embed_share=_same_box_heads(names, decoder_layers))


def decoder_layer_count(names: Names) -> int:
    """The number of decoder layers."""
    return names.count(*_ends(DECODER, "fc1.bias", "final_layer_norm.weight"))


def _same_box_heads(names: Names, layers: int) -> bool:
    """Whether all decoder layers have equal box heads, as in the released Grounding DINO weights."""
    for end in (f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")):
        heads = [head for n in range(layers) if (head := names.tensor(f"bbox_embed.{n}.{end}")) is not None]
        # files have a copy per layer: only equal values show that they are shared
        if any(not torch.equal(heads[0], head) for head in heads[1:]):
            return False
    return True


def _backbone_config(names: Names) -> SwinConfig:
    stages = names.count(*(_block("{}", 0, end) for end in _NORMS))
    depths = [names.count(*(_block(stage, "{}", end) for end in _NORMS)) for stage in range(stages)]
    tables = [
        [_block(s, b, "attention.self.relative_position_bias_table") for b in range(d)] for s, d in enumerate(depths)
    ]
    width = names.length(
        0, *(BACKBONE + f"embeddings.{end}" for end in ("patch_embeddings.projection.weight", "norm.weight"))
    )
    hidden = names.length(0, _block(0, 0, "intermediate.dense.bias"), _block(0, 0, "intermediate.dense.weight"))
    # the relative position table has (2 * window - 1)² rows
    window = (math.isqrt(names.length(0, *tables[0])) + 1) // 2
    # only stages whose maps are used have a norm of their own
    maps = [f"stage{i}" for i in range(1, stages + 1) if _has_norm(names, i)]
    return SwinConfig(
        image_size=PRETRAINED_PIXELS.get(window, 224),
        patch_size=names.length(-1, BACKBONE + "embeddings.patch_embeddings.projection.weight"),
        embed_dim=width,
        depths=depths,
        num_heads=[names.length(1, *places) for places in tables],  # a table is (offsets, heads)
        window_size=window,
        mlp_ratio=hidden / width,
        qkv_bias=any(names.tensor(_block(s, 0, "attention.self.query.bias")) is not None for s in range(stages)),
        out_features=maps,
    )


_NORMS = ("layernorm_before.weight", "layernorm_after.weight")


def _block(stage: int | str, block: int | str, end: str) -> str:
    return BLOCK.format(stage, block) + end


def _has_norm(names: Names, stage: int) -> bool:
    starts = (f"{BACKBONE}hidden_states_norms.stage{stage}.{end}" for end in ("weight", "bias"))
    return any(names.tensor(name) is not None for name in starts)


def _text_config(names: Names) -> BertConfig:
    words, layer = "model.text_backbone.embeddings.", "model.text_backbone.encoder.layer.{}."
    width = names.length(-1, words + "word_embeddings.weight", words + "LayerNorm.weight")
    return BertConfig(
        vocab_size=names.length(0, words + "word_embeddings.weight"),
        hidden_size=width,
        num_hidden_layers=names.count(layer + "intermediate.dense.bias", layer + "output.dense.bias"),
        num_attention_heads=max(1, width // TEXT_HEAD_CHANNELS),
        intermediate_size=names.length(0, *_first(layer, "intermediate.dense.bias", "intermediate.dense.weight")),
        max_position_embeddings=names.length(0, words + "position_embeddings.weight"),
        type_vocab_size=names.length(0, words + "token_type_embeddings.weight"),
    )


def _ends(start: str, *ends: str) -> tuple[str, ...]:
    return tuple(start + end for end in ends)


def _first(start: str, *ends: str) -> tuple[str, ...]:
    """Names in the first layer."""
    return tuple(start.format(0) + end for end in ends)


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
