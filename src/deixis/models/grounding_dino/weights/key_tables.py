"""The name of each detector tensor in the files of IDEA-Research and of MMDetection; rules are used both ways.

IDEA-Research   https://github.com/IDEA-Research/GroundingDINO, also Open-GroundingDino
MMDetection     https://github.com/open-mmlab/mmdetection, configs/mm_grounding_dino and grounding_dino; LLMDet
"""

from __future__ import annotations

from collections.abc import Sequence

from deixis.models.grounding_dino.weights.transformers_layout import BACKBONE
from deixis.models.weight_files import KeyTable, Rule


def _rules(ours: str, theirs: str, pairs: dict[str, str]) -> list[Rule]:
    """Rules for modules below a common start; their names end before `weight` or `bias`."""
    return [Rule(f"{ours}{a}.", f"{theirs}{b}.") for a, b in pairs.items()]


def _thirds(ours: str, theirs: str) -> list[Rule]:
    # Swin stacks them as `qkv`, `nn.MultiheadAttention` as `in_proj_weight` and `in_proj_bias`.
    return [Rule(f"{ours}{name}.", theirs, "third", part) for part, name in enumerate(("query", "key", "value"))]


def _same(ours: str, theirs: str, names: Sequence[str]) -> list[Rule]:
    return _rules(ours, theirs, {name: name for name in names})


DEFORMABLE = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
FUSION = {
    "layer_norm_vision": "layer_norm_v",
    "layer_norm_text": "layer_norm_l",
    "attn.vision_proj": "attn.v_proj",
    "attn.text_proj": "attn.l_proj",
    "attn.values_vision_proj": "attn.values_v_proj",
    "attn.values_text_proj": "attn.values_l_proj",
    "attn.out_vision_proj": "attn.out_v_proj",
    "attn.out_text_proj": "attn.out_l_proj",
}
FEED_FORWARD_IDEA = {"fc1": "linear1", "fc2": "linear2"}
# mmcv's FFN: a `Sequential` of a `Sequential` (linear, activation, dropout), a linear layer and dropout
FEED_FORWARD_MM = {"fc1": "ffn.layers.0.0", "fc2": "ffn.layers.1"}
BLOCK, STAGE = BACKBONE + "encoder.layers.{}.blocks.{}.", BACKBONE + "encoder.layers.{}."
ENCODER, DECODER = "model.encoder.layers.{}.", "model.decoder.layers.{}."
# More than any released model has: a rule that no tensor needs does nothing.
MAX_STAGES = MAX_EXTRA_LEVELS = 8


def idea_table() -> KeyTable:
    """The layout of IDEA-Research's `.pth` files, without the prefix `module.`."""
    block, encoder, decoder = "backbone.0.layers.{}.blocks.{}.", "transformer.encoder.", "transformer.decoder."
    rules = _rules(
        BACKBONE + "embeddings.", "backbone.0.patch_embed.", {"patch_embeddings.projection": "proj", "norm": "norm"}
    )
    rules += _thirds(BLOCK + "attention.self.", block + "attn.qkv.")
    rules += [Rule(BLOCK + "attention.self.", block + "attn.")]  # relative_position_bias_table
    blocks = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    rules += _rules(BLOCK, block, blocks)
    rules += _same(STAGE, "backbone.0.layers.{}.", ("downsample.reduction", "downsample.norm"))
    # transformers counts stages from 1
    stages = range(1, MAX_STAGES + 1)
    rules += [Rule(f"{BACKBONE}hidden_states_norms.stage{i}.", f"backbone.0.norm{i - 1}.") for i in stages]

    layer = encoder + "layers.{}."
    rules += _same(ENCODER + "deformable_layer.self_attn.", layer + "self_attn.", DEFORMABLE)
    norms = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2"}
    rules += _rules(ENCODER + "deformable_layer.", layer, FEED_FORWARD_IDEA | norms)
    layer = encoder + "text_layers.{}."
    rules += _thirds(ENCODER + "text_enhancer_layer.self_attn.", layer + "self_attn.in_proj_")
    norms = {"layer_norm_before": "norm1", "layer_norm_after": "norm2", "self_attn.out_proj": "self_attn.out_proj"}
    rules += _rules(ENCODER + "text_enhancer_layer.", layer, FEED_FORWARD_IDEA | norms)
    rules += _fusion_rules(encoder + "fusion_layers.{}.")

    # `norm1` follows the image attention, as in Deformable DETR, though here self-attention comes first.
    layer = decoder + "layers.{}."
    rules += _thirds(DECODER + "self_attn.", layer + "self_attn.in_proj_")
    rules += _thirds(DECODER + "encoder_attn_text.", layer + "ca_text.in_proj_")
    rules += _same(DECODER + "encoder_attn.", layer + "cross_attn.", DEFORMABLE)
    others = {
        "self_attn.out_proj": "self_attn.out_proj",
        "encoder_attn_text.out_proj": "ca_text.out_proj",
        "encoder_attn_layer_norm": "norm1",
        "encoder_attn_text_layer_norm": "catext_norm",
        "self_attn_layer_norm": "norm2",
        "final_layer_norm": "norm3",
    }
    rules += _rules(DECODER, layer, FEED_FORWARD_IDEA | others)
    return KeyTable([*rules, *_idea_single_rules(decoder)])


def _idea_single_rules(decoder: str) -> list[Rule]:
    return [
        Rule("model.decoder.layer_norm.", decoder + "norm."),
        Rule("model.decoder.reference_points_head.", decoder + "ref_point_head."),
        # theirs are shared with the decoder: both names are in its files
        Rule("bbox_embed.{}.", "bbox_embed.{}.", copy=decoder + "bbox_embed.{}."),
        Rule("model.input_proj_vision.", "input_proj."),
        Rule("model.text_backbone.", "bert."),
        Rule("model.text_projection.", "feat_map."),
        Rule("model.level_embed", "transformer.level_embed"),
        Rule("model.query_position_embeddings.", "transformer.tgt_embed."),
        Rule("model.enc_output.", "transformer.enc_output."),
        Rule("model.enc_output_norm.", "transformer.enc_output_norm."),
        Rule("model.encoder_output_bbox_embed.", "transformer.enc_out_bbox_embed."),
    ]


def _fusion_rules(layer: str) -> list[Rule]:
    ours = ENCODER + "fusion_layer."
    scales = [Rule(ours + "vision_param", layer + "gamma_v"), Rule(ours + "text_param", layer + "gamma_l")]
    return [*_rules(ours, layer, FUSION), *scales]


def mmdetection_table(maps: int, decoder_layers: int) -> KeyTable:
    """The layout of MMDetection's `.pth` files.

    Args:
        maps: number of feature maps from the backbone; extra levels are counted from 0 again.
        decoder_layers: the head with this number, after those of the decoder, is the encoder's.
    """
    block = "backbone.stages.{}.blocks.{}."
    rules = _rules(
        BACKBONE + "embeddings.", "backbone.patch_embed.", {"patch_embeddings.projection": "projection", "norm": "norm"}
    )
    rules += _thirds(BLOCK + "attention.self.", block + "attn.w_msa.qkv.")
    rules += [Rule(BLOCK + "attention.self.", block + "attn.w_msa.")]  # relative_position_bias_table
    blocks = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.w_msa.proj",
        "intermediate.dense": "ffn.layers.0.0",
        "output.dense": "ffn.layers.1",
    }
    rules += _rules(BLOCK, block, blocks)
    # MMDetection merges patches with `nn.Unfold`, which puts the channels before the pixels
    rules += [Rule(STAGE + "downsample.", "backbone.stages.{}.downsample.", "unfolded")]
    stages = range(1, MAX_STAGES + 1)
    rules += [Rule(f"{BACKBONE}hidden_states_norms.stage{i}.", f"backbone.norm{i - 1}.") for i in stages]

    layer = "encoder.layers.{}."
    rules += _same(ENCODER + "deformable_layer.self_attn.", layer + "self_attn.", DEFORMABLE)
    norms = {"self_attn_layer_norm": "norms.0", "final_layer_norm": "norms.1"}
    rules += _rules(ENCODER + "deformable_layer.", layer, FEED_FORWARD_MM | norms)
    layer = "encoder.text_layers.{}."
    # mmcv wraps PyTorch's attention, hence `.attn`
    rules += _thirds(ENCODER + "text_enhancer_layer.self_attn.", layer + "self_attn.attn.in_proj_")
    others = {
        "self_attn.out_proj": "self_attn.attn.out_proj",
        "layer_norm_before": "norms.0",
        "layer_norm_after": "norms.1",
    }
    rules += _rules(ENCODER + "text_enhancer_layer.", layer, FEED_FORWARD_MM | others)
    rules += _fusion_rules("encoder.fusion_layers.{}.")

    # MMDetection counts the norms in the order of their use: self-attention, text, image, feed-forward.
    layer = "decoder.layers.{}."
    rules += _thirds(DECODER + "self_attn.", layer + "self_attn.attn.in_proj_")
    rules += _thirds(DECODER + "encoder_attn_text.", layer + "cross_attn_text.attn.in_proj_")
    rules += _same(DECODER + "encoder_attn.", layer + "cross_attn.", DEFORMABLE)
    others = {
        "self_attn.out_proj": "self_attn.attn.out_proj",
        "encoder_attn_text.out_proj": "cross_attn_text.attn.out_proj",
        "self_attn_layer_norm": "norms.0",
        "encoder_attn_text_layer_norm": "norms.1",
        "encoder_attn_layer_norm": "norms.2",
        "final_layer_norm": "norms.3",
    }
    rules += _rules(DECODER, layer, FEED_FORWARD_MM | others)
    return KeyTable([*rules, *_mmdetection_single_rules(maps, decoder_layers)])


def _mmdetection_single_rules(maps: int, decoder_layers: int) -> list[Rule]:
    levels = [(level, f"neck.convs.{level}.") for level in range(maps)]
    levels += [(maps + extra, f"neck.extra_convs.{extra}.") for extra in range(MAX_EXTRA_LEVELS)]
    rules = [
        Rule(f"model.input_proj_vision.{level}.{part}.", f"{theirs}{name}.")
        for level, theirs in levels
        for part, name in enumerate(("conv", "gn"))
    ]
    for ours, place in enumerate((0, 2, 4)):  # a `Sequential`; 1 and 3 are ReLUs
        head = f"bbox_head.reg_branches.{decoder_layers}.{place}."
        rules += [Rule(f"bbox_embed.{{}}.layers.{ours}.", f"bbox_head.reg_branches.{{}}.{place}.")]
        rules += [Rule(f"model.encoder_output_bbox_embed.layers.{ours}.", head)]
    return [
        *rules,
        Rule("class_embed.{}.", "bbox_head.cls_branches.{}.", "one"),
        Rule("model.encoder_output_class_embed.", f"bbox_head.cls_branches.{decoder_layers}.", "one"),
        Rule("model.decoder.layer_norm.", "decoder.norm."),
        Rule("model.decoder.reference_points_head.", "decoder.ref_point_head."),
        Rule("model.text_backbone.", "language_model.language_backbone.body.model."),
        Rule("model.text_projection.", "text_feat_map."),
        Rule("model.level_embed", "level_embed"),
        Rule("model.query_position_embeddings.", "query_embedding."),
        Rule("model.enc_output.", "memory_trans_fc."),
        Rule("model.enc_output_norm.", "memory_trans_norm."),
    ]
