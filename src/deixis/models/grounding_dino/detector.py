"""Grounding DINO and MM-Grounding-DINO: names in, boxes out (arXiv 2303.05499, arXiv 2401.02361).

The parameters have the names of transformers' `GroundingDinoForObjectDetection` and
`MMGroundingDinoForObjectDetection`. In evaluation mode the outputs equal theirs, except for boxes at the very edge of
an image, where they equal the authors' (see `heads.inverse_sigmoid`). The other differences are for training: every
layer's outputs are returned, the encoder's outputs can be trained, and boxes look forward twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from deixis.data.detect.denoising import DenoisingQueries
from deixis.errors import ModelError
from deixis.models.grounding_dino.backbone import Backbone
from deixis.models.grounding_dino.build import decoder_layer, encoder_layer, initialise, repeated
from deixis.models.grounding_dino.decoder import Decoder, add_denoising
from deixis.models.grounding_dino.encoder import Encoder, Pyramid, TextContext
from deixis.models.grounding_dino.heads import (
    HEAD_EPSILONS,
    Perceptron,
    RawSimilarity,
    ScaledSimilarity,
    pad_logits,
    refine_boxes,
)
from deixis.models.grounding_dino.layers.positions import encoder_reference_points
from deixis.models.grounding_dino.trunk import Trunk

CLASS_HEADS: dict[str, type[nn.Module]] = {"grounding-dino": RawSimilarity, "mm-grounding-dino": ScaledSimilarity}
LEARNED_SCALE = "learned_logit_scale"
"""A key of deixis in config.json: class scores have a learned scale per layer. transformers ignores it."""
PARALLEL = "parallel_decoder"
"""Another one: the decoder's layers run in parallel, and their predictions are averaged; see `Decoder`."""
# What transformers can vary and all released weights share: boxes from the encoder's proposals, contents from learned
# embeddings, sine positions in the image, four numbers per reference.
FIXED = {"two_stage": True, "embedding_init_target": True, "position_embedding_type": "sine", "query_dim": 4}


class GroundingDino(nn.Module):
    """The detector.

    Args:
        config: transformers' `GroundingDinoConfig` or `MMGroundingDinoConfig`, which determines the class score.

    Raises:
        ModelError: another kind of configuration, or a variant that no released weights use.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        check_config(config)
        class_head = partial(CLASS_HEADS[config.model_type], learned_scale=has_learned_scale(config))
        self.config = config
        self.max_text_len: int = config.max_text_len
        self.head_epsilon = HEAD_EPSILONS[config.model_type]
        self.model = Trunk(
            Backbone(config.backbone_config),
            config.text_config,
            Encoder([encoder_layer(config) for _ in range(config.encoder_layers)]),
            decoder=Decoder(
                [decoder_layer(config) for _ in range(config.decoder_layers)],
                config.d_model,
                config.query_dim,
                norm_eps=config.layer_norm_eps,
            ),
            class_head=class_head(),
            d_model=config.d_model,
            levels=config.num_feature_levels,
            queries=config.num_queries,
            norm_eps=config.layer_norm_eps,
            position_temperature=config.positional_embedding_temperature,
        )
        count, width = config.decoder_layers, config.d_model
        # one head in all layers, or one for each: the list has an entry per layer in any case
        shared_class = getattr(config, "decoder_cls_embed_share", True)
        self.class_embed = repeated(class_head, count, shared_class)
        self.bbox_embed = repeated(lambda: Perceptron(width, width, 4, depth=3), count, config.decoder_bbox_embed_share)
        initialise(self)
        self.model.decoder.parallel = is_parallel(config)

    @property
    def parallel(self) -> bool:
        """Whether the decoder's layers run in parallel; kept in config.json."""
        return self.model.decoder.parallel

    @parallel.setter
    def parallel(self, enabled: bool) -> None:
        self.model.decoder.parallel = enabled
        setattr(self.config, PARALLEL, enabled)

    @property
    def queries(self) -> int:
        """The largest number of objects in an image."""
        return int(self.config.num_queries)

    def make_room(self, prompts: int) -> None:
        """Let at least this many prompts be remembered at a time."""
        self.model.prompt_cache.make_room(prompts)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass: slower, with much less memory."""
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
        *,
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Any]:
        """Detect what the prompts name.

        Args:
            pixel_values: normalised RGB, zeros where padded.
            pixel_mask: true on real pixels, which fill each image's top left corner.
            input_ids: prompts from [CLS] to [SEP], padded on the right.
            attention_mask: true on real tokens.
            denoising: additional queries, in training only; the outputs of the others do not depend on them.

        Returns:
            `pred_logits` (batch, queries, max_text_len), minus infinity on every position that is not a real token;
            `pred_boxes` (batch, queries, 4), cxcywh over the unpadded image; `text_token_mask` (batch, max_text_len);
            `aux_outputs`, logits and boxes of each decoder layer except the last; `enc_outputs`, those of the encoder's
            proposals; with `denoising`, `denoising_outputs`, those of its queries, one per decoder layer including the
            last. An image with fewer cells than `num_queries` has as many queries as cells.

        Raises:
            ModelError: a prompt has more than `max_text_len` tokens.
        """
        context = self.encode_text(input_ids, attention_mask)
        return self.ground(self.encode_image(pixel_values, pixel_mask), context, denoising)

    def encode_image(
        self, pixel_values: Float[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Pyramid:
        """Encode images once, for any number of prompts with `ground`."""
        return self.model.encode_image(pixel_values, pixel_mask)

    def encode_text(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Bool[Tensor, "batch tokens"]
    ) -> TextContext:
        """Encode prompts once, for any number of images with `ground`.

        Raises:
            ModelError: a prompt has more than `max_text_len` tokens.
        """
        if input_ids.shape[1] > self.max_text_len:
            raise ModelError(
                f"the prompt has {input_ids.shape[1]} tokens, this model reads {self.max_text_len}; ask for fewer names"
            )
        return self.model.encode_text(input_ids, attention_mask)

    def ground(
        self, pyramid: Pyramid, context: TextContext, denoising: DenoisingQueries | None = None
    ) -> dict[str, Any]:
        """The outputs of `forward` for encoded images and prompts, one prompt per image."""
        model, attention_mask = self.model, context.mask
        reference = encoder_reference_points(pyramid.shapes_hw, pyramid.valid_wh)  # [B, K, levels, 2], cell centres
        # [B, K, C] and [B, L, C], each with features of the other
        memory, text = model.encoder(pyramid, context, reference)
        proposals = model.propose(memory, pyramid, text, text_mask=attention_mask)
        # The decoder starts from the proposals, which their own loss trains; its content starts from learned queries
        # ("mixed query selection", DINO, arXiv 2203.03605, section 3.4).
        start = proposals.boxes_cxcywh_norm.detach()
        # [queries, C] -> [B, queries, C]; fewer if the image has fewer cells
        queries = model.query_position_embeddings.weight[: start.shape[1]].expand(start.shape[0], -1, -1)
        noised, query_mask = 0, None
        if denoising is not None:
            noised = denoising.real.shape[1]  # they come first; the mask hides them from the others
            queries, start, query_mask = add_denoising(denoising, queries, start, text=context.tokens)
        hidden, references = model.decoder(
            queries,
            start,
            memory,
            pyramid=pyramid,
            text=text,
            text_mask=attention_mask,
            box_heads=self.bbox_embed,
            query_mask=query_mask,
        )
        # every layer's own heads on its own queries; the boxes refine the reference that the layer was given
        layers = [
            self._layer_outputs(
                class_head(state, text), refine_boxes(box_head(state), place, self.head_epsilon), attention_mask
            )
            for class_head, box_head, state, place in zip(
                self.class_embed, self.bbox_embed, hidden, references, strict=True
            )
        ]
        # [B, noised + Q, ...] -> the first `noised` rows and the others
        extra = {"denoising_outputs": [_rows(layer, slice(noised)) for layer in layers]} if noised else {}
        layers = [_rows(layer, slice(noised, None)) for layer in layers]
        return {
            # the average is for predictions; losses compare each layer's own outputs
            **(averaged(layers) if self.parallel and not self.training else layers[-1]),
            **extra,
            # [B, L] -> [B, max_text_len], as wide as the logits
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


def averaged(layers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the boxes and of the probabilities that several layers give, the latter as logits."""
    logits = torch.stack([layer["pred_logits"] for layer in layers])  # [layers, B, Q, L]
    # logit of the mean probability p: log Σσ(x) - log Σσ(-x); the common 1 / layers cancels
    # [B, Q, L] each; minus infinity, on padded tokens, stays so
    is_there, is_absent = (nn.functional.logsigmoid(signed).logsumexp(0) for signed in (logits, -logits))
    boxes = torch.stack([layer["pred_boxes"] for layer in layers]).mean(0)
    return {"pred_logits": is_there - is_absent, "pred_boxes": boxes}


def _rows(layer: dict[str, Tensor], queries: slice) -> dict[str, Tensor]:
    return {name: value[:, queries] for name, value in layer.items()}


def check_config(config: Any) -> None:
    """Raises ModelError unless this detector can be built from the configuration."""
    kind = getattr(config, "model_type", None)
    if kind not in CLASS_HEADS:
        raise ModelError(f"config.json: model_type is '{kind}', expected one of {sorted(CLASS_HEADS)}")
    for name, wanted in FIXED.items():
        if getattr(config, name, wanted) != wanted:
            raise ModelError(f"config.json: {name} is {getattr(config, name)!r}, only {wanted!r} is supported")
    # BERT has one embedding per position: a longer prompt would index outside of its table
    reach = getattr(config.text_config, "max_position_embeddings", config.max_text_len)
    if reach < config.max_text_len:
        raise ModelError(f"config.json: max_text_len is {config.max_text_len}, the text encoder reaches only {reach}")
    if config.d_model % 32:
        raise ModelError(f"config.json: d_model is {config.d_model}, expected a multiple of 32 (group norm)")


def has_learned_scale(config: Any) -> bool:
    """Whether class scores have a learned scale per layer."""
    return getattr(config, LEARNED_SCALE, False) is True


def is_parallel(config: Any) -> bool:
    """Whether the decoder's layers run in parallel."""
    return getattr(config, PARALLEL, False) is True
