"""Tiny segmenters on Qwen2.5-VL and Qwen3-VL, whole images in blocks of 8 pixels, and their released folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from released_segmenters import released_bundle, released_state
from safetensors.torch import save_file
from small_segmenters import WORDS
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

from deixis.data.pixels.cuts import Blocks
from deixis.models.sa2va import TEMPLATES, Sa2vaBundle, init_sa2va
from deixis.models.sa2va.small import small_chat_tokenizer

MARKS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
QWENS = ("qwen2_5_vl", "qwen3_vl")
BLOCKS = Blocks(8, 24 * 64, 64 * 64)
"""24 to 64 blocks of 8 pixels for an image."""


def qwen_tokenizer() -> Any:
    """The small tokenizer with Qwen's marks of an image."""
    tokenizer = small_chat_tokenizer(WORDS)
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    return tokenizer


def qwen_config(kind: str, tokenizer: Any, tied: bool = False) -> Any:
    """Two layers of everything; three layers of Qwen3-VL's vision encoder, after two of which features are taken."""
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 32,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        return Qwen2_5_VLConfig(vision_config=vision, text_config=text, image_token_id=image, tie_word_embeddings=tied)
    vision |= {"depth": 3, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text |= {"head_dim": 16, "rope_parameters": {**text["rope_parameters"], "mrope_interleaved": True}}
    return Qwen3VLConfig(vision_config=vision, text_config=text, image_token_id=image, tie_word_embeddings=tied)


def qwen_segmenter(kind: str, seed: int = 0, behaviour: Any = "sa2va", *, sam: Any = None) -> Sa2vaBundle:
    """A segmenter as released ones are, with SAM 2's memory; in evaluation mode.

    Args:
        sam: configuration of another SAM 2.
    """
    sam = sam or released_bundle("Qwen2ForCausalLM").model.sam.config
    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    bundle = init_sa2va(qwen_config(kind, tokenizer), sam, tokenizer, TEMPLATES["qwen_vl"], behaviour)
    with torch.no_grad():  # what starts at zero, or at one, would hide mistakes
        for parameter in bundle.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    bundle.model.eval()
    return replace(bundle, blocks=BLOCKS)


def released_qwen_state(bundle: Sa2vaBundle) -> dict[str, Tensor]:
    """The weights under released names: Qwen's own below `model`, the rest as in every released Sa2VA."""
    state = dict(bundle.model.state_dict())
    own = {name: tensor for name, tensor in state.items() if name.startswith("vlm.")}
    rest = [name for name in state if not name.startswith("vlm.")]
    out = {"model." + name.removeprefix("vlm."): tensor for name, tensor in own.items()}
    other = released_state(bundle, "Qwen2ForCausalLM")
    return (
        out | {name: other[name] for name in other if name.startswith(("grounding_encoder.", "text_hidden_fcs."))}
        if rest
        else out
    )


def write_released_qwen(bundle: Sa2vaBundle, folder: Path, version: int = 4) -> dict[str, Tensor]:
    """A released folder; the weights.

    Args:
        version: of transformers, whose spelling of the rotary embedding config.json has.
    """
    folder.mkdir()
    state = {name: tensor.clone().contiguous() for name, tensor in released_qwen_state(bundle).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    values = bundle.model.vlm.config.to_dict()
    text = values["text_config"]
    if version == 4:
        rope = text.pop("rope_parameters")
        text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": {**rope, "type": "default"}}
    values |= {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModelQwen"],
        "auto_map": {"AutoModel": "modeling_sa2va_qwen.Sa2VAChatModelQwen"},
        "template": "qwen_chat",
        "deixis_sam_config": bundle.model.sam.config.to_dict(),
        "deixis_pixels": [BLOCKS.min_pixels, BLOCKS.max_pixels],
    }
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": list(bundle.tile_mean), "image_std": list(bundle.tile_std)})
    )
    bundle.tokenizer.save_pretrained(folder)
    return state
