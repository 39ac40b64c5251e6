"""Layers as a configuration describes them, and the initial weights of a detector that is trained from scratch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from deixis.models.grounding_dino.decoder import DecoderLayer
from deixis.models.grounding_dino.encoder import DeformableLayer, EncoderLayer, FusionLayer, TextEnhancerLayer
from deixis.models.grounding_dino.heads import Perceptron
from deixis.models.grounding_dino.layers.attention import DeformableAttention, starting_offsets


def initialise(detector: nn.Module) -> None:
    """Initialise every parameter outside the two backbones, which transformers initialises.

    As in Deformable DETR (appendix A.4) and DINO: Xavier for projections, with zero biases; each head of deformable
    attention samples in another direction, with equal weights; normal query and level embeddings; box heads whose last
    layer is zero, so that training starts from the proposals themselves. Class biases (a probability of 0.01) and the
    fusion's scale (1e-4) are initialised where they are defined.
    """
    model = detector.get_submodule("model")
    backbones = {*model.get_submodule("backbone").modules(), *model.get_submodule("text_backbone").modules()}
    for module in detector.modules():
        if module not in backbones and isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Only now: Xavier went over these layers too.
    for module in detector.modules():
        if isinstance(module, DeformableAttention):
            _reset_sampling(module)
    nn.init.normal_(model.get_submodule("query_position_embeddings").get_parameter("weight"))
    nn.init.normal_(model.get_parameter("level_embed"))
    for name, module in detector.named_modules():
        if "bbox_embed" in name and isinstance(module, Perceptron):
            # with its zero bias, the head moves no box at first
            nn.init.zeros_(module.layers[-1].get_parameter("weight"))


@torch.no_grad()
def _reset_sampling(attention: DeformableAttention) -> None:
    # zero weights: at first the sampling locations do not depend on the query ...
    nn.init.zeros_(attention.sampling_offsets.weight)
    attention.sampling_offsets.bias.copy_(starting_offsets(attention.heads, attention.levels, attention.points))
    # ... and the softmax of zeros weighs all samples equally
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)


def repeated(make: Any, count: int, shared: bool) -> nn.ModuleList:
    """One module in all places, or one for each."""
    # A shared module has all its names in `state_dict`, but its parameters are counted and trained once.
    first = make()
    return nn.ModuleList([first, *(first if shared else make() for _ in range(count - 1))])


def encoder_layer(config: Any) -> EncoderLayer:
    """A layer of the encoder that a configuration describes."""
    # Fusion and text layers get the image's numbers of heads and channels, and halve them themselves.
    width, heads, eps = config.d_model, config.encoder_attention_heads, config.layer_norm_eps
    return EncoderLayer(
        FusionLayer(
            width,
            config.encoder_ffn_dim,
            heads,
            dropout=config.fusion_dropout,
            drop_path=config.fusion_droppath,
            norm_eps=eps,
        ),
        TextEnhancerLayer(
            width,
            config.encoder_ffn_dim,
            heads,
            attention_dropout=config.attention_dropout,
            dropout=config.text_enhancer_dropout,
            activation=config.activation_function,
            norm_eps=eps,
        ),
        DeformableLayer(
            width,
            config.encoder_ffn_dim,
            heads,
            levels=config.num_feature_levels,
            points=config.encoder_n_points,
            dropout=config.dropout,
            activation_dropout=config.activation_dropout,
            activation=config.activation_function,
            norm_eps=eps,
        ),
    )


def decoder_layer(config: Any) -> DecoderLayer:
    """A layer of the decoder."""
    return DecoderLayer(
        config.d_model,
        config.decoder_ffn_dim,
        config.decoder_attention_heads,
        levels=config.num_feature_levels,
        points=config.decoder_n_points,
        attention_dropout=config.attention_dropout,
        dropout=config.dropout,
        activation_dropout=config.activation_dropout,
        activation=config.activation_function,
        norm_eps=config.layer_norm_eps,
    )
