"""config.json of Sa2VA on InternVL 3 and 3.5 as it is published, key by key, with small widths.

What differs between the sizes: 3 speaks Qwen 2 (biases, fewer key-value heads, dynamic rotary embedding), 3.5 Qwen 3
(a head's width of its own, norms on queries and keys); up to 4B the base's output layer is its embedding; 38B and more
have the vision encoder of 6B (no bias, norms on queries and keys, RMS norms).
"""

from __future__ import annotations

from typing import Any

LAYOUTS = ("InternVL3", "InternVL3 38B", "InternVL3.5", "InternVL3.5 tied", "InternVL3.5 38B")

QWEN2 = {
    "_name_or_path": "./pretrained/Qwen2.5-32B-Instruct",
    "architectures": ["Qwen2ForCausalLM"],
    "max_window_layers": 70,
    "model_type": "qwen2",
    "moe_config": None,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
    "rope_theta": 1000000.0,
    "use_bfloat16": True,
}
QWEN3 = {
    "_name_or_path": "/root/Qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "debug": False,
    "ep_size": 1,
    "head_dim": 16,
    "max_window_layers": 28,
    "micro_forward": False,
    "model_type": "qwen3",
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "skip_checkpoint": False,
    "use_deepep": False,
}
VISION_300M = {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True}
VISION_6B = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}


def published_config(layout: str, tokenizer: Any) -> dict[str, Any]:
    """Two layers of everything, 448 px tiles in patches of 14, whatever the size."""
    language = QWEN3 if "3.5" in layout else QWEN2
    text = {
        **language,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_types": ["full_attention", "full_attention"],
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "sliding_window": None,
        "tie_word_embeddings": "tied" in layout,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": len(tokenizer),
    }
    return {
        "architectures": ["Sa2VAChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_sa2va_chat.Sa2VAChatConfig",
            "AutoModel": "modeling_sa2va_chat.Sa2VAChatModel",
            "AutoModelForCausalLM": "modeling_sa2va_chat.Sa2VAChatModel",
        },
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 448,
        "hidden_size": 32,
        "image_fold": None,
        "llm_config": text,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "sa2va_chat",
        "output_attentions": False,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": None,
        "template": "qwen_chat",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": None,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": published_vision(VISION_6B if "38B" in layout else VISION_300M),
    }


def published_vision(kind: dict[str, Any]) -> dict[str, Any]:
    """InternViT's part, with what its experiments left in every file."""
    return {
        **kind,
        "_name_or_path": "OpenGVLab/InternViT-6B-448px-V1-5",
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "auto_map": {"AutoModel": "modeling_intern_vit.InternVisionModel"},
        "capacity_factor": 1.2,
        "drop_path_rate": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": 16,
        "image_size": 448,
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "intermediate_size": 24,
        "laux_allreduce": "all_nodes",
        "layer_norm_eps": 1e-06,
        "model_type": "intern_vit_6b",
        "moe_intermediate_size": 768,
        "noisy_gate_policy": "RSample_before",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_experts": 8,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "torch_dtype": "bfloat16",
        "use_bfloat16": True,
        "use_flash_attn": False,
        "use_moe": False,
    }
