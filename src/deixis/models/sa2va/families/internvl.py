"""InternVL 2, 2.5, 3 and 3.5 (arXiv 2508.18265), as in the first Sa2VA models and in Sa2VA-InternVL3 and -InternVL3_5.

Released checkpoints name its parts `vision_model`, `language_model` and `mlp1`; the language model is Qwen 2, Qwen 3,
Llama or InternLM 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from deixis.batch_records import Grid
from deixis.data.pixels.cuts import Tiling
from deixis.errors import ModelError
from deixis.models.sa2va.families.family import Family, Heads, Released
from deixis.models.sa2va.language.templates import TEMPLATES, Template
from deixis.models.weight_files import Rule

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERNLM2 = "InternLM2ForCausalLM"
TEMPLATE_NAMES = {"qwen_chat": "chatml", "internlm2_chat": "chatml", "phi3_chat": "phi3"}
"""Sa2VA's names for templates to ours."""
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

# Ours (transformers') to the checkpoint's, below the vision tower. Queries, keys and values are one tensor there:
# `rules`.
_VISION = {
    "embeddings.cls_token": "embeddings.class_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "embeddings.patch_embeddings.projection.": "embeddings.patch_embedding.",
    "encoder.layer.{}.attention.projection_layer.": "encoder.layers.{}.attn.proj.",
    "encoder.layer.{}.attention.q_norm.": "encoder.layers.{}.attn.q_norm.",
    "encoder.layer.{}.attention.k_norm.": "encoder.layers.{}.attn.k_norm.",
    "encoder.layer.{}.mlp.": "encoder.layers.{}.mlp.",
    "encoder.layer.{}.lambda_1": "encoder.layers.{}.ls1",
    "encoder.layer.{}.lambda_2": "encoder.layers.{}.ls2",
    "encoder.layer.{}.layernorm_before.": "encoder.layers.{}.norm1.",
    "encoder.layer.{}.layernorm_after.": "encoder.layers.{}.norm2.",
}
_PROJECTOR = {"layer_norm.": "0.", "linear_1.": "1.", "linear_2.": "3."}  # mlp1: norm, linear, GELU, linear
_INTERNLM2 = {
    "self_attn.o_proj.": "attention.wo.",
    "mlp.gate_proj.": "feed_forward.w1.",  # Llama's original names: w1 gate, w3 up, w2 down
    "mlp.up_proj.": "feed_forward.w3.",
    "mlp.down_proj.": "feed_forward.w2.",
    "input_layernorm.": "attention_norm.",
    "post_attention_layernorm.": "ffn_norm.",
}


def vision(
    vlm: Any, tiles: Float[Tensor, "tiles 3 side side"], grids: Sequence[Grid]
) -> Float[Tensor, "tiles tokens channels"]:
    """The vision tower's patches without the class token, 2 × 2 of them joined into one."""
    tower, config = vlm.model.vision_tower, vlm.config
    patches = tower(pixel_values=tiles).last_hidden_state  # [tiles, 1 + side², channels]
    if config.vision_feature_select_strategy == "default":
        patches = patches[:, 1:]  # without the class token
    side = round(patches.shape[1] ** 0.5)
    # [tiles, side, side, channels] to [tiles, side / 2, side / 2, 4 * channels] with a ratio of 0.5
    joined = vlm.model.pixel_shuffle(patches.unflatten(1, (side, side)), scale_factor=config.downsample_ratio)
    features: Tensor = joined.flatten(1, 2)  # [tiles, side² / 4, 4 * channels]
    return features


def project(vlm: Any, features: Float[Tensor, "tiles tokens channels"]) -> Float[Tensor, "tiles tokens hidden"]:
    """Through the projector, which trains by default."""
    projected: Tensor = vlm.model.multi_modal_projector(features)
    return projected


def tiling(config: Any) -> Tiling:
    """Tiles of the vision tower's own size."""
    vision = config.vision_config
    side_px, patch_px = int(vision.image_size[0]), int(vision.patch_size[0])
    # 448 px: 448 // 14 * 0.5 = 16 tokens to a side
    return Tiling(side_px, int(side_px // patch_px * config.downsample_ratio))


def language_of(values: Mapping[str, Any], source: str) -> str:
    """The architecture of the language model.

    Raises:
        ModelError: one that is not known here.
    """
    names = (values.get("llm_config") or {}).get("architectures") or [None]
    if names[0] not in LANGUAGES:
        raise ModelError(f"{source}: the language model is {names[0]!r}, expected one of {list(LANGUAGES)}")
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
    # v1 leaves rows and columns swapped after the pixel shuffle, and an earlier layer has other features: transformers
    # does neither, and such a model would read its pictures wrongly without any error.
    if (shuffle, layer) != ("v2", -1):
        raise ModelError(
            f"{source}: ps_version {str(shuffle)[:20]!r} (v1 where the file has none) and select_layer "
            f"{str(layer)[:20]} are not supported; expected 'v2' and -1, as released Sa2VA models have"
        )
    vision = {ours: values["vision_config"][name] for name, ours in VISION.items() if name in values["vision_config"]}
    patch = values["vision_config"].get("patch_size", PATCH_PX)
    # As in their code, force_image_size wins over the vision encoder's own.
    side = values.get("force_image_size") or values["vision_config"].get("image_size", IMAGE_PX)
    ratio = float(values.get("downsample_ratio", 0.5))
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision, image_size=[side, side], patch_size=[patch, patch]),
        text_config=_text_config(values["llm_config"], language, tied),
        image_token_id=image_token_id,
        image_seq_length=int((side // patch * ratio) ** 2),
        downsample_ratio=ratio,
        tie_word_embeddings=tied,
    )
    if language == INTERNLM2:
        config.text_config.released_architecture = language  # to be written back the same
    return config


def _text_config(values: Mapping[str, Any], language: str, tied: bool) -> Any:
    kind = LANGUAGES[language]
    # transformers 4 wrote dozens of settings for generation into such files; only the language model's own fields are
    # kept, without those that are set below.
    known = kind().to_dict().keys() - {"architectures", "model_type", "dtype", "rope_parameters", "tie_word_embeddings"}
    named = {RENAMED.get(name, name): value for name, value in values.items()}
    kept = {name: value for name, value in named.items() if name in known and value is not None}
    # transformers 4 has rope_theta and rope_scaling (with `type`), transformers 5 both in rope_parameters
    # (`rope_type`).
    rope = {"rope_theta": values.get("rope_theta", 10_000.0), "rope_type": "default"}
    scaling = values.get("rope_scaling") or values.get("rope_parameters")
    if scaling:
        rope |= {("rope_type" if name == "type" else name): value for name, value in scaling.items()}
    return kind(**kept, rope_parameters=rope, tie_word_embeddings=tied)


def heads(config: Any) -> Heads:
    """How InternLM 2 interleaves its attention."""
    text = config.text_config
    # grouped queries: each key serves several
    return Heads(text.num_key_value_heads, text.num_attention_heads // text.num_key_value_heads)


def released_values(config: Any, template: Template) -> dict[str, Any]:
    """A config.json in the released form, without SAM 2's part."""
    vision, text = config.vision_config, config.text_config.to_dict()
    language = written_language(config.text_config)
    rope = dict(text.pop("rope_parameters", None) or {})
    text |= {"architectures": [language], "rope_theta": rope.pop("rope_theta", 10_000.0)}
    kind = rope.pop("rope_type", "default")
    text["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    theirs = next((theirs for theirs, ours in TEMPLATE_NAMES.items() if ours == template.name), "qwen_chat")
    if language == INTERNLM2:
        text |= {"model_type": "internlm2", "bias": text.pop("attention_bias")}
        theirs = "internlm2_chat"
    return {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModel"],
        "downsample_ratio": config.downsample_ratio,
        "force_image_size": vision.image_size[0],
        "ps_version": "v2",
        "select_layer": -1,
        "template": theirs,
        "tie_word_embeddings": False,  # `scatter` writes the output layer out, also where it is tied
        # How Sa2VA's own code cuts images: 1 to 12 tiles and the whole as one more.
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
    }


def written_language(text_config: Any) -> str:
    """The architecture that config.json names."""
    written = getattr(text_config, "released_architecture", None)
    names = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
    return str(written or names.get(text_config.model_type, text_config.model_type))


def rules(config: Any) -> list[Rule]:
    """Where the tensors of a checkpoint are, by its language model."""
    tower, layer = "vlm.model.vision_tower.", "vlm.model.vision_tower.encoder.layer.{}.attention."
    qkv = "vision_model.encoder.layers.{}.attn.qkv."
    # The vision tower's qkv: all queries, then all keys, then all values.
    found = [Rule(f"{layer}{name}_proj.", qkv, "third", part) for part, name in enumerate("qkv")]
    found += [Rule(tower + ours, "vision_model." + theirs) for ours, theirs in _VISION.items()]
    found += [Rule("vlm.model.multi_modal_projector." + ours, "mlp1." + theirs) for ours, theirs in _PROJECTOR.items()]
    return found + (_internlm2() if written_language(config.text_config) == INTERNLM2 else _plain_language())


def _plain_language() -> list[Rule]:
    return [Rule("vlm.model.language_model.", "language_model.model."), Rule("vlm.lm_head.", "language_model.lm_head.")]


def _internlm2() -> list[Rule]:
    ours, theirs = "vlm.model.language_model.layers.{}.", "language_model.model.layers.{}."
    found = [
        # InternLM 2's wqkv: for each key its queries, itself and its value, group after group.
        Rule(f"{ours}self_attn.{name}_proj.", f"{theirs}attention.wqkv.", "grouped", part)
        for part, name in enumerate("qkv")
    ]
    found += [Rule(ours + mine, theirs + other) for mine, other in _INTERNLM2.items()]
    return [
        *found,
        Rule("vlm.model.language_model.embed_tokens.", "language_model.model.tok_embeddings."),
        Rule("vlm.model.language_model.norm.", "language_model.model.norm."),
        Rule("vlm.lm_head.", "language_model.output."),
    ]


INTERNVL = Family(
    "internvl",
    InternVLForConditionalGeneration,
    "model.vision_tower",
    vision,
    {"model.vision_tower.": "vision", "model.multi_modal_projector.": "projector"},
    tiling,
    Released(
        lambda values: isinstance(values.get("llm_config"), Mapping),
        lambda values, folder: TEMPLATES[TEMPLATE_NAMES.get(str(values.get("template")), "chatml")],
        vlm_config,
        ("language_model.lm_head.weight", "language_model.output.weight"),
        ("language_model.model.embed_tokens.weight", "language_model.model.tok_embeddings.weight"),
        rules,
        released_values,
        IMAGENET,
        heads=heads,
    ),
    project=project,
)
