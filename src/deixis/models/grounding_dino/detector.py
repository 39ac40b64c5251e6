"""Grounding DINO and MM-Grounding-DINO: names in, boxes out (arXiv 2303.05499, arXiv 2401.02361).

The parameters carry the names of transformers' `GroundingDinoForObjectDetection` and
`MMGroundingDinoForObjectDetection`, and in evaluation mode the outputs are theirs, but for boxes at the very edge of
a picture, where they are the authors' (see `heads.inverse_sigmoid`). What differs besides is what training needs:
every layer's outputs are returned, the encoder's outputs can be trained, boxes look forward twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from deixis.data.detect.denoising import DenoisingQueries
from deixis.errors import ModelError
from deixis.models.grounding_dino.backbone import Backbone
from deixis.models.grounding_dino.decoder import Decoder, DecoderLayer
from deixis.models.grounding_dino.denoising import add_denoising
from deixis.models.grounding_dino.encoder import (
    DeformableLayer,
    Encoder,
    EncoderLayer,
    FusionLayer,
    Pyramid,
    TextContext,
    TextEnhancerLayer,
)
from deixis.models.grounding_dino.heads import (
    HEAD_EPSILONS,
    Perceptron,
    RawSimilarity,
    ScaledSimilarity,
    pad_logits,
    refine_boxes,
)
from deixis.models.grounding_dino.initialise import initialise
from deixis.models.grounding_dino.layers.positions import encoder_reference_points
from deixis.models.grounding_dino.trunk import Trunk

CLASS_HEADS: dict[str, type[nn.Module]] = {"grounding-dino": RawSimilarity, "mm-grounding-dino": ScaledSimilarity}
LEARNED_SCALE = "learned_logit_scale"
"""Our key in config.json: class scores have a learned scale for each layer; transformers passes over it."""
FIXED = {"two_stage": True, "embedding_init_target": True, "position_embedding_type": "sine", "query_dim": 4}


class GroundingDino(nn.Module):
    """The detector.

    Args:
        config: transformers' `GroundingDinoConfig` or `MMGroundingDinoConfig`; which one decides the class score.
        prompt_cache: how many prompts to remember while the text encoder is frozen; 0 for none.

    Raises:
        ModelError: another kind of configuration, or a variant that no released weights use.
    """

    def __init__(self, config: Any, prompt_cache: int = 64) -> None:
        super().__init__()
        check_config(config)
        class_head = partial(CLASS_HEADS[config.model_type], learned_scale=has_learned_scale(config))
        self.config = config
        self.max_text_len: int = config.max_text_len
        self.head_epsilon = HEAD_EPSILONS[config.model_type]
        self.model = Trunk(
            Backbone(config.backbone_config),
            config.text_config,
            Encoder([_encoder_layer(config) for _ in range(config.encoder_layers)]),
            Decoder(
                [_decoder_layer(config) for _ in range(config.decoder_layers)],
                config.d_model,
                config.query_dim,
                config.layer_norm_eps,
            ),
            class_head(),
            d_model=config.d_model,
            levels=config.num_feature_levels,
            queries=config.num_queries,
            norm_eps=config.layer_norm_eps,
            position_temperature=config.positional_embedding_temperature,
            prompt_cache=prompt_cache,
        )
        count, width = config.decoder_layers, config.d_model
        shared_class = getattr(config, "decoder_cls_embed_share", True)
        self.class_embed = _repeat(class_head, count, shared_class)
        self.bbox_embed = _repeat(lambda: Perceptron(width, width, 4, 3), count, config.decoder_bbox_embed_share)
        initialise(self)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass: slower, and far less memory."""
        return self.model.encoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enabled: bool) -> None:
        self.model.encoder.gradient_checkpointing = enabled
        self.model.decoder.gradient_checkpointing = enabled
        self.model.backbone.checkpoint_gradients(enabled)

    def forward(
        self,
        pixel_values: Float[Tensor, "batch 3 height width"],
        pixel_mask: Bool[Tensor, "batch height width"],
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Bool[Tensor, "batch tokens"],
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Any]:
        """Find what the prompts name.

        Args:
            pixel_values: normalised RGB, zeros where padded.
            pixel_mask: true on real pixels, which fill each image's top left corner.
            input_ids: prompts from [CLS] to [SEP], padded behind.
            attention_mask: true on real tokens.
            denoising: further queries, in training only; what the others return does not depend on them.

        Returns:
            `pred_logits` (batch, queries, max_text_len), minus infinity on every position that is not a real token;
            `pred_boxes` (batch, queries, 4), cxcywh over the unpadded image; `text_token_mask` (batch, max_text_len);
            `aux_outputs`, logits and boxes of each decoder layer but the last; `enc_outputs`, those of the encoder's
            proposals; with `denoising`, `denoising_outputs`, those of its queries, one a decoder layer, the last
            included. An image with fewer cells than `num_queries` has as many queries as cells.

        Raises:
            ModelError: a prompt of more than `max_text_len` tokens.
        """
        context = self.encode_text(input_ids, attention_mask)
        return self.ground(self.encode_image(pixel_values, pixel_mask), context, denoising)

    def encode_image(
        self, pixel_values: Float[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Pyramid:
        """The images, to be asked any number of prompts with `ground`."""
        return self.model.encode_image(pixel_values, pixel_mask)

    def encode_text(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Bool[Tensor, "batch tokens"]
    ) -> TextContext:
        """The prompts, to be asked of any number of images with `ground`.

        Raises:
            ModelError: a prompt of more than `max_text_len` tokens.
        """
        if input_ids.shape[1] > self.max_text_len:
            raise ModelError(
                f"the prompt has {input_ids.shape[1]} tokens, this model reads {self.max_text_len}; ask for fewer names"
            )
        return self.model.encode_text(input_ids, attention_mask)

    def ground(
        self, pyramid: Pyramid, context: TextContext, denoising: DenoisingQueries | None = None
    ) -> dict[str, Any]:
        """What `forward` returns, for images and prompts that are encoded already, one prompt an image."""
        model, attention_mask = self.model, context.mask
        reference = encoder_reference_points(pyramid.shapes_hw, pyramid.valid_wh)
        memory, text = model.encoder(pyramid, context, reference)
        proposals = model.propose(memory, pyramid, text, attention_mask)
        start = proposals.boxes_cxcywh_norm.detach()
        queries = model.query_position_embeddings.weight[: start.shape[1]].expand(len(start), -1, -1)
        noised, query_mask = 0, None
        if denoising is not None:
            noised = denoising.real.shape[1]
            queries, start, query_mask = add_denoising(denoising, queries, start, context.tokens)
        hidden, references = model.decoder(
            queries, start, memory, pyramid, text, attention_mask, self.bbox_embed, query_mask
        )
        layers = [
            self._layer_outputs(
                class_head(state, text), refine_boxes(box_head(state), place, self.head_epsilon), attention_mask
            )
            for class_head, box_head, state, place in zip(
                self.class_embed, self.bbox_embed, hidden, references, strict=True
            )
        ]
        extra = {"denoising_outputs": [_rows(layer, slice(noised)) for layer in layers]} if noised else {}
        layers = [_rows(layer, slice(noised, None)) for layer in layers]
        return {
            **layers[-1],
            **extra,
            "text_token_mask": nn.functional.pad(attention_mask, (0, self.max_text_len - attention_mask.shape[1])),
            "aux_outputs": layers[:-1],
            "enc_outputs": self._layer_outputs(proposals.logits, proposals.boxes_cxcywh_norm, attention_mask),
        }

    def _layer_outputs(
        self,
        logits: Float[Tensor, "batch queries tokens"],
        boxes_cxcywh_norm: Float[Tensor, "batch queries 4"],
        token_mask: Bool[Tensor, "batch tokens"],
    ) -> dict[str, Tensor]:
        return {"pred_logits": pad_logits(logits, token_mask, self.max_text_len), "pred_boxes": boxes_cxcywh_norm}


def _rows(layer: dict[str, Tensor], queries: slice) -> dict[str, Tensor]:
    return {name: value[:, queries] for name, value in layer.items()}


def check_config(config: Any) -> None:
    """Raise ModelError unless this detector can be built from the configuration."""
    kind = getattr(config, "model_type", None)
    if kind not in CLASS_HEADS:
        raise ModelError(f"config.json: model_type is '{kind}', wanted one of {sorted(CLASS_HEADS)}")
    for name, wanted in FIXED.items():
        if getattr(config, name, wanted) != wanted:
            raise ModelError(f"config.json: {name} is {getattr(config, name)!r}, only {wanted!r} is supported")
    reach = getattr(config.text_config, "max_position_embeddings", config.max_text_len)
    if reach < config.max_text_len:
        raise ModelError(f"config.json: max_text_len is {config.max_text_len}, the text encoder reaches only {reach}")
    if config.d_model % 32:
        raise ModelError(f"config.json: d_model is {config.d_model}, wanted a multiple of 32 (group norm)")


def has_learned_scale(config: Any) -> bool:
    """Whether each layer's class scores have a learned scale."""
    return getattr(config, LEARNED_SCALE, False) is True


def _repeat(make: Any, count: int, shared: bool) -> nn.ModuleList:
    first = make()
    return nn.ModuleList([first, *(first if shared else make() for _ in range(count - 1))])


def _encoder_layer(config: Any) -> EncoderLayer:
    width, heads, eps = config.d_model, config.encoder_attention_heads, config.layer_norm_eps
    return EncoderLayer(
        FusionLayer(width, config.encoder_ffn_dim, heads, config.fusion_dropout, config.fusion_droppath, eps),
        TextEnhancerLayer(
            width,
            config.encoder_ffn_dim,
            heads,
            config.attention_dropout,
            config.text_enhancer_dropout,
            config.activation_function,
            eps,
        ),
        DeformableLayer(
            width,
            config.encoder_ffn_dim,
            heads,
            config.num_feature_levels,
            config.encoder_n_points,
            config.dropout,
            config.activation_dropout,
            config.activation_function,
            eps,
        ),
    )


def _decoder_layer(config: Any) -> DecoderLayer:
    return DecoderLayer(
        config.d_model,
        config.decoder_ffn_dim,
        config.decoder_attention_heads,
        config.num_feature_levels,
        config.decoder_n_points,
        config.attention_dropout,
        config.dropout,
        config.activation_dropout,
        config.activation_function,
        config.layer_norm_eps,
    )
