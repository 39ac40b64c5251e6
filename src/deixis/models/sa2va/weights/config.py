"""Configurations of released Sa2VA checkpoints (InternVL kind) as transformers' own, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    Sam2VideoConfig,
)

from deixis.errors import ModelError
from deixis.models.sa2va.weights.layout import INTERNLM2, SAM_PREFIX, Heads

LANGUAGES = {
    "Qwen2ForCausalLM": Qwen2Config,
    "Qwen3ForCausalLM": Qwen3Config,
    "LlamaForCausalLM": LlamaConfig,
    INTERNLM2: LlamaConfig,
}
"""Architecture of the language model to the configuration it has here; InternLM 2 is Llama under other names."""

RENAMED = {"bias": "attention_bias"}
"""InternLM 2's word for one of Llama's."""

VISION = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "norm_type": "norm_type",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
}
PATCH_PX, IMAGE_PX = 14, 224
"""What InternViT's own code takes where config.json is silent."""
SAM_KEY = "deixis_sam_config"
"""Where a configuration written here keeps SAM 2's; released ones leave it to their code."""


class Hiera(NamedTuple):
    """One of SAM 2's image encoders."""

    heads: int
    blocks: tuple[int, ...]
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...]
    background: int


HIERAS = {
    (96, 12): Hiera(1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    (96, 16): Hiera(1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    (112, 24): Hiera(2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    (144, 48): Hiera(2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}
"""Width and number of blocks to tiny, small, base+ and large (facebookresearch/sam2, sam2/configs)."""


def language_of(values: Mapping[str, Any], source: str) -> str:
    """The architecture of the language model.

    Raises:
        ModelError: one that is not known here.
    """
    names = (values.get("llm_config") or {}).get("architectures") or [None]
    if names[0] not in LANGUAGES:
        raise ModelError(f"{source}: the language model is {names[0]!r}, wanted one of {list(LANGUAGES)}")
    return str(names[0])


def vlm_config(values: Mapping[str, Any], image_token_id: int, tied: bool, source: str) -> InternVLConfig:
    """The vision-language half.

    Args:
        values: a released config.json.
        tied: whether the checkpoint has no output layer of its own.

    Raises:
        ModelError: a language model or a pixel shuffle that is not known here.
    """
    language = language_of(values, source)
    shuffle, layer = values.get("ps_version", "v1"), values.get("select_layer", -1)  # as their code's defaults
    if (shuffle, layer) != ("v2", -1):
        raise ModelError(
            f"{source}: ps_version {str(shuffle)[:20]!r} (v1 where the file has none) and select_layer "
            f"{str(layer)[:20]} are not supported; expected 'v2' and -1, as released Sa2VA models have"
        )
    vision = {ours: values["vision_config"][name] for name, ours in VISION.items() if name in values["vision_config"]}
    patch = values["vision_config"].get("patch_size", PATCH_PX)
    side = values.get("force_image_size") or values["vision_config"].get("image_size", IMAGE_PX)
    ratio = float(values.get("downsample_ratio", 0.5))
    return InternVLConfig(
        vision_config=InternVLVisionConfig(**vision, image_size=[side, side], patch_size=[patch, patch]),
        text_config=_text_config(values["llm_config"], language, tied),
        image_token_id=image_token_id,
        image_seq_length=int((side // patch * ratio) ** 2),
        downsample_ratio=ratio,
        tie_word_embeddings=tied,
    )


def _text_config(values: Mapping[str, Any], language: str, tied: bool) -> Any:
    kind = LANGUAGES[language]
    known = kind().to_dict().keys() - {"architectures", "model_type", "dtype", "rope_parameters", "tie_word_embeddings"}
    named = {RENAMED.get(name, name): value for name, value in values.items()}
    kept = {name: value for name, value in named.items() if name in known and value is not None}
    rope = {"rope_theta": values.get("rope_theta", 10_000.0), "rope_type": "default"}
    scaling = values.get("rope_scaling") or values.get("rope_parameters")
    if scaling:
        rope |= {("rope_type" if name == "type" else name): value for name, value in scaling.items()}
    return kind(**kept, rope_parameters=rope, tie_word_embeddings=tied)


def heads_of(text_config: Any) -> Heads:
    """How InternLM 2 interleaves its attention."""
    groups = text_config.num_key_value_heads
    return Heads(groups, text_config.num_attention_heads // groups)


def sam_config(values: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> Sam2VideoConfig:
    """SAM 2 with its memory: as config.json says, or as the weights show.

    Raises:
        ModelError: an image encoder of unknown shape.
    """
    if SAM_KEY in values:
        return Sam2VideoConfig.from_dict(values[SAM_KEY])
    trunk = SAM_PREFIX + "image_encoder.trunk."
    blocks = _count(state, re.escape(trunk) + r"blocks\.(\d+)\.norm1\.weight")
    first = state.get(f"{trunk}patch_embed.proj.bias")
    width = 0 if first is None else len(first)
    if (width, blocks) not in HIERAS:
        raise ModelError(
            f"{source}: SAM 2's image encoder is {width} wide and has {blocks} blocks; wanted {list(HIERAS)}"
        )
    hiera = HIERAS[width, blocks]
    widths = [width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": hiera.heads,
        "blocks_per_stage": list(hiera.blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [hiera.heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(hiera.windows),
        "global_attention_blocks": list(hiera.global_blocks),
        "window_positional_embedding_background_size": [hiera.background, hiera.background],
    }
    return Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
        },
        enable_temporal_pos_encoding_for_object_pointers=_has(state, "obj_ptr_tpos_proj.weight"),
        enable_occlusion_spatial_embedding=_has(state, "no_obj_embed_spatial"),
    )


def released_values(vlm: Any, sam: Any, language: str, template: str) -> dict[str, Any]:
    """A config.json in the released form."""
    vision, text = vlm.vision_config, vlm.text_config.to_dict()
    rope = dict(text.pop("rope_parameters", None) or {})
    text |= {"architectures": [language], "rope_theta": rope.pop("rope_theta", 10_000.0)}
    kind = rope.pop("rope_type", "default")
    text["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    if language == INTERNLM2:
        text |= {"model_type": "internlm2", "bias": text.pop("attention_bias")}
    return {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModel"],
        "downsample_ratio": vlm.downsample_ratio,
        "force_image_size": vision.image_size[0],
        "ps_version": "v2",
        "select_layer": -1,
        "template": template,
        "tie_word_embeddings": False,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "llm_config": text,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "image_size": vision.image_size[0],
            "patch_size": vision.patch_size[0],
            **{name: getattr(vision, ours) for name, ours in VISION.items()},
        },
        SAM_KEY: sam.to_dict(),
    }


def _has(state: Iterable[str], name: str) -> bool:
    return SAM_PREFIX + name in state


def _count(state: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})
