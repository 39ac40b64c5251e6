"""What the segmenter asks of a vision-language model of transformers, and how each kind answers.

The model is never called as a whole: images, text and positions are brought together by `Sa2va`, which can so put
other things among the tokens, take hidden states where it wants them, and compute logits only where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from deixis.errors import ModelError
from deixis.models.sa2va.language.qwen import TILE_TOKENS_SIDE, qwen_positions, qwen_project, qwen_tile_px, qwen_vision


class Kind(NamedTuple):
    """One kind of vision-language model.

    Attributes:
        architecture: the class in transformers.
        vision: tiles to image features. InternVL's come before the projector, which trains by default; Qwen's come
            after it, and may be cached only where it is frozen.
        project: image features to the language model's embeddings, [tiles, tokens, hidden].
        positions: of tokens in rows, from (is_image, tokens_per_tile); None where they count on.
        vision_module: the module of `vision`, by its name in the model.
        tile_px: side of a tile in pixels, by the configuration.
        tokens_per_tile: by the configuration.
        parts: starts of parameter names to the part they belong to.
    """

    architecture: Any
    vision: Callable[[Any, Tensor], Tensor]
    project: Callable[[Any, Tensor], Tensor]
    positions: Callable[[Tensor, int], Tensor] | None
    vision_module: str
    tile_px: Callable[[Any], int]
    tokens_per_tile: Callable[[Any], int]
    parts: Mapping[str, str]


def kind_of(config: Any) -> Kind:
    """The kind of model that a configuration describes.

    Raises:
        ModelError: one that cannot be used here.
    """
    name = getattr(config, "model_type", None)
    if name not in KINDS:
        raise ModelError(f"model_type {name!r} cannot be made a segmenter; wanted one of {sorted(KINDS)}")
    return KINDS[name]


def language_model(vlm: Any) -> nn.Module:
    """The decoder without its output layer; its last hidden state is normalised."""
    module: nn.Module = vlm.model.language_model
    return module


def _internvl_vision(vlm: Any, tiles: Float[Tensor, "tiles 3 side side"]) -> Float[Tensor, "tiles tokens channels"]:
    """The vision tower's patches without the class token, 2 × 2 of them joined into one."""
    tower, config = vlm.model.vision_tower, vlm.config
    patches = tower(pixel_values=tiles).last_hidden_state
    if config.vision_feature_select_strategy == "default":
        patches = patches[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    joined = vlm.model.pixel_shuffle(patches.unflatten(1, (side, side)), scale_factor=config.downsample_ratio)
    features: Tensor = joined.flatten(1, 2)
    return features


def _internvl_project(
    vlm: Any, features: Float[Tensor, "tiles tokens channels"]
) -> Float[Tensor, "tiles tokens hidden"]:
    projected: Tensor = vlm.model.multi_modal_projector(features)
    return projected


def _internvl_tokens(config: Any) -> int:
    vision = config.vision_config
    return int((vision.image_size[0] // vision.patch_size[0] * config.downsample_ratio) ** 2)


KINDS = {
    "internvl": Kind(
        InternVLForConditionalGeneration,
        _internvl_vision,
        _internvl_project,
        None,
        "model.vision_tower",
        lambda config: int(config.vision_config.image_size[0]),
        _internvl_tokens,
        {"model.vision_tower.": "vision", "model.multi_modal_projector.": "projector"},
    ),
    "qwen2_5_vl": Kind(
        Qwen2_5_VLForConditionalGeneration,
        qwen_vision,
        qwen_project,
        qwen_positions,
        "model.visual",
        qwen_tile_px,
        lambda config: TILE_TOKENS_SIDE**2,
        {"model.visual.merger.": "projector", "model.visual.": "vision"},
    ),
}
"""model_type of a configuration to what it takes."""
