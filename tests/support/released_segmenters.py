"""Segmenters under the names of released Sa2VA checkpoints, by rules of their own: none of deixis's tables is used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_segmenters import WORDS
from torch import Tensor
from transformers import InternVLConfig, LlamaConfig, Sam2VideoConfig

from deixis.models.sa2va import Sa2vaBundle, init_sa2va
from deixis.models.sa2va.small import small_chat_tokenizer, small_sam_config, small_vlm_config

KV_HEADS, HEADS, HEAD = 2, 4, 8

LANGUAGE = [
    (r"^vlm\.model\.language_model\.(.*)", r"language_model.model.\1"),
    (r"^vlm\.lm_head\.", "language_model.lm_head."),
]
INTERNLM = [
    (r"^language_model\.lm_head", "language_model.output"),
    (r"model\.embed_tokens", "model.tok_embeddings"),
    (r"self_attn\.o_proj", "attention.wo"),
    (r"mlp\.gate_proj", "feed_forward.w1"),
    (r"mlp\.down_proj", "feed_forward.w2"),
    (r"mlp\.up_proj", "feed_forward.w3"),
    (r"input_layernorm", "attention_norm"),
    (r"post_attention_layernorm", "ffn_norm"),
]
VISION = [
    (r"^vlm\.model\.vision_tower\.", "vision_model."),
    (r"encoder\.layer\.", "encoder.layers."),
    (r"attention\.([qk])_norm", r"attn.\1_norm"),
    (r"cls_token", "class_embedding"),
    (r"position_embeddings", "position_embedding"),
    (r"patch_embeddings\.projection", "patch_embedding"),
    (r"attention\.projection_layer", "attn.proj"),
    (r"lambda_", "ls"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^vlm\.model\.multi_modal_projector\.layer_norm", "mlp1.0"),
    (r"^vlm\.model\.multi_modal_projector\.linear_1", "mlp1.1"),
    (r"^vlm\.model\.multi_modal_projector\.linear_2", "mlp1.3"),
]
SAM = [
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"mask_downsampler\.final_conv", "mask_downsampler.encoder.12"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding", "#"),
    (r"^shared_image_embedding\.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"memory_fuser", "fuser"),
    (r"feature_projection", "pix_feat_proj"),
    (r"^memory_encoder\.projection", "memory_encoder.out_proj"),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"\.scale$", ".g_weight"),
    (r"o_proj", "out_proj"),
    (r"layer_norm", "norm"),
    (r"^no_memory_embedding", "no_mem_embed"),
    (r"^no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"^no_object_pointer", "no_obj_ptr"),
    (r"^object_pointer_proj", "obj_ptr_proj"),
]
THREE = r"(hypernetworks_mlps\.\d+|prediction_head|score_head|ptr_proj)\."


def released_bundle(language: str, seed: int = 0) -> Sa2vaBundle:
    """A tiny segmenter as a released one is: nothing tied, SAM 2.0 with its memory."""
    torch.manual_seed(seed)
    tokenizer = small_chat_tokenizer(WORDS)
    vlm: Any = small_vlm_config(tokenizer, tile_px=64, vision_width=32, vision_layers=2, text_width=32, tied=False)
    if language == "InternLM2ForCausalLM":
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HEADS * HEAD,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
        )
        vlm = InternVLConfig(
            vision_config=vlm.vision_config,
            text_config=text,
            image_token_id=vlm.image_token_id,
            image_seq_length=16,
            tie_word_embeddings=False,
        )
    small = small_sam_config(64, channels=32, widths=(8, 16, 24, 32), blocks=(1, 1, 2, 1)).to_dict()
    decoder = {**small["mask_decoder_config"], "model_type": "sam2_video_mask_decoder"}
    prompt = {**small["prompt_encoder_config"], "model_type": "sam2_video_prompt_encoder"}
    sam = Sam2VideoConfig(
        vision_config=small["vision_config"],
        mask_decoder_config=decoder,
        prompt_encoder_config=prompt,
        image_size=64,
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=16,
    )
    bundle = init_sa2va(vlm, sam, tokenizer, behaviour="sa2va")
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    bundle.model.eval()
    return bundle


def released_state(bundle: Sa2vaBundle, language: str) -> dict[str, Tensor]:
    """The weights under released names."""
    state = dict(bundle.model.state_dict())
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("sam."):
            out |= _sam(name.removeprefix("sam."), tensor)
        elif "vision_tower" in name or "multi_modal" in name:
            out |= _vision(name, tensor, state)
        elif name.startswith("text_hidden_fcs"):
            out[name] = tensor
        else:
            out |= _language(_renamed(name, LANGUAGE), tensor, state, language)
    return {name: tensor.clone().contiguous() for name, tensor in out.items()}


def _vision(name: str, tensor: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if re.search(r"attention\.[kv]_proj", name):
        return {}
    if "attention.q_proj" in name:
        joined = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        return {_renamed(name.replace("attention.q_proj", "attn.qkv"), VISION): joined}
    return {_renamed(name, VISION): tensor}


def _language(name: str, tensor: Tensor, state: dict[str, Tensor], language: str) -> dict[str, Tensor]:
    if language != "InternLM2ForCausalLM":
        return {name: tensor}
    if re.search(r"self_attn\.[kv]_proj", name):
        return {}
    if "self_attn.q_proj" in name:
        ours = name.replace("language_model.model.", "vlm.model.language_model.")
        query, key, value = (state[ours.replace("q_proj", f"{letter}_proj")] for letter in "qkv")
        rows = []
        for group in range(KV_HEADS):  # einops: (h gs d), two queries, a key, a value to a group
            per = HEADS // KV_HEADS
            rows += [query[(group * per + i) * HEAD : (group * per + i + 1) * HEAD] for i in range(per)]
            rows += [part[group * HEAD : (group + 1) * HEAD] for part in (key, value)]
        return {name.replace("self_attn.q_proj", "attention.wqkv"): torch.cat(rows)}
    return {_renamed(name, INTERNLM): tensor}


def _sam(name: str, tensor: Tensor) -> dict[str, Tensor]:
    prefix = "grounding_encoder.sam2_model."
    if name == "prompt_encoder.point_embed.weight":
        return {f"{prefix}sam_prompt_encoder.point_embeddings.{i}.weight": tensor[i : i + 1] for i in range(4)}
    name = re.sub(
        r"mask_downsampler\.layers\.(\d+)\.(conv|layer_norm)",
        lambda m: f"mask_downsampler.encoder.{3 * int(m[1]) + (m[2] == 'layer_norm')}",
        name,
    )
    name = _renamed(name, SAM)
    if re.search(THREE, name):
        name = re.sub(r"\.layers\.0\.", ".layers.1.", name)
        name = name.replace("proj_in", "layers.0").replace("proj_out", "layers.2")
    else:
        name = name.replace("mlp.proj_in", "mlp.layers.0").replace("mlp.proj_out", "mlp.layers.1")
    return {} if name == "#" else {prefix + name: tensor}


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def released_config(bundle: Sa2vaBundle, language: str) -> dict[str, Any]:
    """config.json as Sa2VA writes it (SAM 2's shape is not among it; a tiny one has to be told)."""
    vlm = bundle.model.vlm.config
    vision, text = vlm.vision_config, vlm.text_config
    llm = {
        "architectures": [language],
        "model_type": "internlm2" if language.startswith("InternLM2") else text.model_type,
        "rope_theta": text.rope_parameters["rope_theta"],
        "rope_scaling": {"type": "dynamic", "factor": 2.0} if language.startswith("InternLM2") else None,
        "torch_dtype": "bfloat16",
        "temperature": 1.0,
        "tie_word_embeddings": False,
    }
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    llm |= {name: getattr(text, name) for name in (*names, "num_key_value_heads", "rms_norm_eps", "hidden_act")}
    if language.startswith("InternLM2"):
        llm |= {"bias": False, "attn_implementation": "eager"}
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": "sa2va_chat",
        "auto_map": {"AutoModel": "modeling_sa2va_chat.Sa2VAChatModel"},
        "downsample_ratio": 0.5,
        "force_image_size": 64,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2_chat" if language.startswith("InternLM2") else "qwen_chat",
        "tie_word_embeddings": False,
        "llm_config": llm,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "drop_path_rate": 0.1,
            "hidden_act": "gelu",
            "hidden_size": vision.hidden_size,
            "image_size": 64,
            "intermediate_size": vision.intermediate_size,
            "layer_norm_eps": vision.layer_norm_eps,
            "norm_type": "layer_norm",
            "num_attention_heads": vision.num_attention_heads,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": 8,
            "qk_normalization": False,
            "qkv_bias": True,
        },
        "deixis_sam_config": bundle.model.sam.config.to_dict(),
    }


def write_released(bundle: Sa2vaBundle, language: str, folder: Path, shards: int = 2) -> dict[str, Tensor]:
    """A released folder, its weights in several files; the weights."""
    folder.mkdir()
    state = released_state(bundle, language)
    names = sorted(state)
    where = {name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: state[name] for name in names if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(released_config(bundle, language)))
    bundle.tokenizer.save_pretrained(folder)
    return state
