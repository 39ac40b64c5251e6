"""Our weights renamed to the layouts of IDEA-Research and MMDetection, by tables written apart from the package's.

Written from the modules in IDEA-Research/GroundingDINO (groundingdino/models/GroundingDINO) and open-mmlab/mmdetection
(mmdet/models/detectors/grounding_dino.py, layers/transformer/grounding_dino_layers.py, backbones/swin.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

SWIN = "model.backbone.conv_encoder.model."

IDEA_NAMES = [
    (r"^model\.backbone\.conv_encoder\.model\.", "backbone.0."),
    (r"^backbone\.0\.embeddings\.patch_embeddings\.projection", "backbone.0.patch_embed.proj"),
    (r"^backbone\.0\.embeddings\.norm", "backbone.0.patch_embed.norm"),
    (r"^backbone\.0\.encoder\.layers", "backbone.0.layers"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^(backbone.*)attention\.self\.relative", r"\1attn.relative"),
    (r"^(backbone.*)attention\.output\.dense", r"\1attn.proj"),
    (r"^(backbone.*)intermediate\.dense", r"\1mlp.fc1"),
    (r"^(backbone.*blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"^model\.text_backbone", "bert"),
    (r"^model\.text_projection", "feat_map"),
    (r"^model\.input_proj_vision", "input_proj"),
    (r"^model\.level_embed", "transformer.level_embed"),
    (r"^model\.query_position_embeddings", "transformer.tgt_embed"),
    (r"^model\.encoder_output_bbox_embed", "transformer.enc_out_bbox_embed"),
    (r"^model\.enc_output", "transformer.enc_output"),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"transformer.encoder.layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.", r"transformer.encoder.text_layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"transformer.encoder.fusion_layers.\1."),
    (r"(fusion_layers.*)vision_param", r"\1gamma_v"),
    (r"(fusion_layers.*)text_param", r"\1gamma_l"),
    (r"(fusion_layers.*_norm_)vision", r"\1v"),
    (r"(fusion_layers.*_norm_)text", r"\1l"),
    (r"(fusion_layers.*attn\.\w*)vision_proj", r"\1v_proj"),
    (r"(fusion_layers.*attn\.\w*)text_proj", r"\1l_proj"),
    (r"(encoder\.text_layers.*)layer_norm_before", r"\1norm1"),
    (r"(encoder\.text_layers.*)layer_norm_after", r"\1norm2"),
    (r"(encoder\.layers.*)self_attn_layer_norm", r"\1norm1"),
    (r"(encoder\.layers.*)final_layer_norm", r"\1norm2"),
    (r"^model\.decoder\.layers\.", "transformer.decoder.layers."),
    (r"(transformer.*)fc1", r"\1linear1"),
    (r"(transformer.*)fc2", r"\1linear2"),
    (r"^model\.decoder\.layer_norm", "transformer.decoder.norm"),
    (r"^model\.decoder\.reference_points_head", "transformer.decoder.ref_point_head"),
    (r"encoder_attn_text_layer_norm", "catext_norm"),
    (r"encoder_attn_layer_norm", "norm1"),
    (r"(decoder.*)self_attn_layer_norm", r"\1norm2"),
    (r"(decoder.*)final_layer_norm", r"\1norm3"),
    (r"encoder_attn_text\.", "ca_text."),
    (r"encoder_attn\.", "cross_attn."),
]

MM_NAMES = [
    (r"^model\.backbone\.conv_encoder\.model\.", "backbone."),
    (r"^backbone\.embeddings\.patch_embeddings", "backbone.patch_embed"),
    (r"^backbone\.embeddings\.norm", "backbone.patch_embed.norm"),
    (r"^backbone\.encoder\.layers", "backbone.stages"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^(backbone.*)attention\.self\.relative", r"\1attn.w_msa.relative"),
    (r"^(backbone.*)attention\.output\.dense", r"\1attn.w_msa.proj"),
    (r"^(backbone.*)intermediate\.dense", r"\1ffn.layers.0.0"),
    (r"^(backbone.*blocks\.\d+)\.output\.dense", r"\1.ffn.layers.1"),
    (r"^model\.text_backbone", "language_model.language_backbone.body.model"),
    (r"^model\.text_projection", "text_feat_map"),
    (r"^model\.level_embed", "level_embed"),
    (r"^model\.query_position_embeddings", "query_embedding"),
    (r"^model\.enc_output\.", "memory_trans_fc."),
    (r"^model\.enc_output_norm", "memory_trans_norm"),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"encoder.layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.", r"encoder.text_layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"encoder.fusion_layers.\1."),
    (r"(fusion_layers.*)vision_param", r"\1gamma_v"),
    (r"(fusion_layers.*)text_param", r"\1gamma_l"),
    (r"(fusion_layers.*_norm_)vision", r"\1v"),
    (r"(fusion_layers.*_norm_)text", r"\1l"),
    (r"(fusion_layers.*attn\.\w*)vision_proj", r"\1v_proj"),
    (r"(fusion_layers.*attn\.\w*)text_proj", r"\1l_proj"),
    (r"(encoder\.text_layers.*self_attn\.)out_proj", r"\1attn.out_proj"),
    (r"(encoder\.text_layers.*)layer_norm_before", r"\1norms.0"),
    (r"(encoder\.text_layers.*)layer_norm_after", r"\1norms.1"),
    (r"^(encoder\.layers.*)self_attn_layer_norm", r"\1norms.0"),
    (r"^(encoder\.layers.*)final_layer_norm", r"\1norms.1"),
    (r"^model\.decoder\.layers\.", "decoder.layers."),
    (r"^model\.decoder\.layer_norm", "decoder.norm"),
    (r"^model\.decoder\.reference_points_head", "decoder.ref_point_head"),
    (r"^(decoder.*)self_attn_layer_norm", r"\1norms.0"),
    (r"encoder_attn_text_layer_norm", "norms.1"),
    (r"encoder_attn_layer_norm", "norms.2"),
    (r"^(decoder.*)final_layer_norm", r"\1norms.3"),
    (r"^(decoder.*self_attn\.)out_proj", r"\1attn.out_proj"),
    (r"encoder_attn_text\.out_proj", "cross_attn_text.attn.out_proj"),
    (r"encoder_attn\.", "cross_attn."),
    (r"^((?:encoder|decoder)\..*)fc1", r"\1ffn.layers.0.0"),
    (r"^((?:encoder|decoder)\..*)fc2", r"\1ffn.layers.1"),
]

JOINED = re.compile(
    r"(?P<start>.*\.(?:attention\.self|text_enhancer_layer\.self_attn|decoder\.layers\.\d+\.self_attn|encoder_attn_text))"
    r"\.(?P<part>query|key|value)\.(?P<kind>weight|bias)"
)


def joined(tensors: Mapping[str, Tensor], swin: str, dense: str) -> dict[str, Tensor]:
    """Query, key and value stacked: Swin's under `swin` + kind, the others' under `dense` + kind."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = JOINED.fullmatch(name)
        if match is None or name.startswith("model.text_backbone"):
            out[name] = tensor
        elif match["part"] == "query":
            rest = [tensors[f"{match['start']}.{part}.{match['kind']}"] for part in ("key", "value")]
            new = swin if name.startswith(SWIN) else dense
            start = match["start"].removesuffix(".attention.self") if name.startswith(SWIN) else match["start"]
            out[f"{start}.{new}{match['kind']}"] = torch.cat([tensor, *rest])
    return out


def renamed(name: str, table: list[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def to_idea(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the names in `groundingdino_swint_ogc.pth`, with all that such a file holds besides."""
    out: dict[str, Tensor] = {}
    for name, tensor in joined(tensors, "attn.qkv.", "in_proj_").items():
        if "swin.layernorm" in name:
            continue
        stage = re.match(r".*hidden_states_norms\.stage(\d)\.(\w+)", name)
        new = f"backbone.0.norm{int(stage[1]) - 1}.{stage[2]}" if stage else renamed(name, IDEA_NAMES)
        out[f"module.{new}"] = tensor
        if new.startswith("bbox_embed."):
            out[f"module.transformer.decoder.{new}"] = tensor
    for name in [name for name in out if name.endswith("relative_position_bias_table")]:
        out[name.replace("bias_table", "index")] = torch.zeros(2, 2, dtype=torch.int64)
    out["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    out["module.bert.pooler.dense.weight"] = torch.zeros(2, 2)
    out["module.label_enc.weight"] = torch.zeros(3, 2)
    return out


def unfolded(tensor: Tensor) -> Tensor:
    """Swin's patch merging as MMDetection keeps it: channel by channel, each with its 2 x 2 pixels row by row."""
    channels = tensor.shape[-1] // 4
    out = torch.empty_like(tensor)
    for channel in range(channels):
        for row in range(2):
            for column in range(2):
                out[..., channel * 4 + row * 2 + column] = tensor[..., (column * 2 + row) * channels + channel]
    return out


def to_mmdetection(tensors: Mapping[str, Tensor], maps: int, layers: int) -> dict[str, Tensor]:
    """Under the names in MM-Grounding-DINO's and LLMDet's files, with all that such files hold besides."""
    out: dict[str, Tensor] = {}
    for name, tensor in joined(tensors, "attn.w_msa.qkv.", "attn.in_proj_").items():
        if "swin.layernorm" in name:
            continue
        if stage := re.match(r".*hidden_states_norms\.stage(\d)\.(\w+)", name):
            new = f"backbone.norm{int(stage[1]) - 1}.{stage[2]}"
        elif level := re.match(r"model\.input_proj_vision\.(\d)\.([01])\.(\w+)", name):
            number = int(level[1])
            module = f"neck.convs.{number}" if number < maps else f"neck.extra_convs.{number - maps}"
            new = f"{module}.{'conv' if level[2] == '0' else 'gn'}.{level[3]}"
        elif head := re.match(r"(?:bbox_embed\.(\d+)|model\.encoder_output_bbox_embed)\.layers\.(\d)\.(\w+)", name):
            new = f"bbox_head.reg_branches.{head[1] or layers}.{int(head[2]) * 2}.{head[3]}"
        elif head := re.match(r"(?:class_embed\.(\d+)|model\.encoder_output_class_embed)\.(bias|log_scale)", name):
            new, tensor = f"bbox_head.cls_branches.{head[1] or layers}.{head[2]}", tensor.reshape(1)
        else:
            new = renamed(name, MM_NAMES).replace("encoder_attn_text.attn.in", "cross_attn_text.attn.in")
        out[new] = unfolded(tensor) if "downsample" in name else tensor
    for name in [name for name in out if name.endswith("relative_position_bias_table")]:
        out[name.replace("bias_table", "index")] = torch.zeros(2, 2, dtype=torch.int64)
    out["language_model.language_backbone.body.model.embeddings.position_ids"] = torch.arange(512)[None]
    out["dn_query_generator.label_embedding.weight"] = torch.zeros(256, 2)
    return out
