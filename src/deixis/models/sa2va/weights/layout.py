"""Where each tensor of the segmenter stands in released Sa2VA checkpoints (ByteDance/Sa2VA-*).

The vision-language model's names are its family's; SAM 2's are below `grounding_encoder.sam2_model`, then there is
`text_hidden_fcs`. The tables are read both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.sa2va.families.family import Heads
from deixis.models.weight_files import KeyTable, Place, Rule

SAM_PREFIX = "grounding_encoder.sam2_model."
POINT_KINDS = 4
MASK_STRIDES = 4  # convolutions of stride 2 before the memory encoder

_SAM = {
    "no_memory_embedding": "no_mem_embed",
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_object_pointer": "no_obj_ptr",
    "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    "temporal_positional_encoding_projection_layer.": "obj_ptr_tpos_proj.",
    "mask_downsample.": "mask_downsample.",
    # transformers has the random waves of positions twice, for pixels and for points; the checkpoint once.
    "shared_image_embedding.positional_embedding": "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.shared_embedding.positional_embedding": (
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    ),
    "prompt_encoder.no_mask_embed.": "sam_prompt_encoder.no_mask_embed.",
    "prompt_encoder.not_a_point_embed.": "sam_prompt_encoder.not_a_point_embed.",
    "vision_encoder.backbone.pos_embed": "image_encoder.trunk.pos_embed",
    "vision_encoder.backbone.patch_embed.projection.": "image_encoder.trunk.patch_embed.proj.",
    "vision_encoder.neck.convs.{}.": "image_encoder.neck.convs.{}.conv.",
    # Numbers are places in a Sequential, in which activations (2, and 5 in `_MASK_EMBED`) have no tensors.
    "mask_decoder.upscale_conv1.": "sam_mask_decoder.output_upscaling.0.",
    "mask_decoder.upscale_layer_norm.": "sam_mask_decoder.output_upscaling.1.",
    "mask_decoder.upscale_conv2.": "sam_mask_decoder.output_upscaling.3.",
    "memory_attention.layer_norm.": "memory_attention.norm.",
    "memory_encoder.feature_projection.": "memory_encoder.pix_feat_proj.",
    "memory_encoder.projection.": "memory_encoder.out_proj.",
}
_MASK_EMBED = {"conv1.": "0.", "layer_norm1.": "1.", "conv2.": "3.", "layer_norm2.": "4.", "conv3.": "6."}
_BLOCK = {
    "attn.": "attn.",
    "proj.": "proj.",
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "mlp.proj_in.": "mlp.layers.0.",
    "mlp.proj_out.": "mlp.layers.1.",
}
_DECODER_LAYER = {
    **{f"layer_norm{i}.": f"norm{i}." for i in range(1, 5)},
    "mlp.proj_in.": "mlp.layers.0.",
    "mlp.proj_out.": "mlp.layers.1.",
}
_MEMORY_LAYER = {
    **{f"layer_norm{i}.": f"norm{i}." for i in range(1, 4)},
    "linear1.": "linear1.",
    "linear2.": "linear2.",
}
_FUSER = {
    "scale": "g_weight",
    "depthwise_conv.": "dwconv.",
    "layer_norm.": "norm.",
    "pointwise_conv1.": "pwconv1.",
    "pointwise_conv2.": "pwconv2.",
}
# transformers names the first and last layer of a perceptron, and counts those between from 0.
_THREE_LAYERS = {"proj_in.": "layers.0.", "layers.0.": "layers.1.", "proj_out.": "layers.2."}
_ATTENTION = {"q_proj.": "q_proj.", "k_proj.": "k_proj.", "v_proj.": "v_proj.", "o_proj.": "out_proj."}


def released_table(rules: Iterable[Rule] = ()) -> KeyTable:
    """The places of a segmenter's tensors.

    Args:
        rules: of the vision-language model; see `families.family.Released`.
    """
    return KeyTable([*rules, Rule("text_hidden_fcs.", "text_hidden_fcs."), *_sam()])


def _below(ours: str, theirs: str, pairs: Mapping[str, str]) -> list[Rule]:
    return [Rule(ours + mine, theirs + other) for mine, other in pairs.items()]


def _sam() -> list[Rule]:
    heads = {"iou_prediction_head.", "pred_obj_score_head.", "output_hypernetworks_mlps.{}."}
    layer, prompt = "mask_decoder.transformer.layers.{}.", "sam_prompt_encoder."
    rules = _below("", "", _SAM)
    rules += _below("prompt_encoder.mask_embed.", f"{prompt}mask_downscaling.", _MASK_EMBED)
    # Background, foreground, and the two corners of a box: four embeddings of one row each there, one of four rows
    # here.
    rules += [Rule("prompt_encoder.point_embed.", f"{prompt}point_embeddings.*.", "rows")]
    rules += _below("vision_encoder.backbone.blocks.{}.", "image_encoder.trunk.blocks.{}.", _BLOCK)
    for name in ("self_attn.", "cross_attn_token_to_image.", "cross_attn_image_to_token."):
        rules += _below(layer + name, f"sam_{layer}{name}", _ATTENTION)
    rules += _below(layer, f"sam_{layer}", _DECODER_LAYER)
    final = "mask_decoder.transformer.final_attn_token_to_image."
    rules += _below(final, f"sam_{final}", _ATTENTION)
    rules += [Rule("mask_decoder.transformer.layer_norm_final_attn.", "sam_mask_decoder.transformer.norm_final_attn.")]
    for head in sorted(heads):
        rules += _below(f"mask_decoder.{head}", f"sam_mask_decoder.{head}", _THREE_LAYERS)
    rules += _below("object_pointer_proj.", "obj_ptr_proj.", _THREE_LAYERS)
    rules += _memory()
    rules += [Rule("mask_decoder.", "sam_mask_decoder.")]  # tokens, conv_s0, conv_s1
    return [Rule(f"sam.{rule.ours}", SAM_PREFIX + rule.theirs, rule.form, rule.part) for rule in rules]


def _memory() -> list[Rule]:
    layer, down = "memory_attention.layers.{}.", "memory_encoder.mask_downsampler."
    rules = _below(layer, layer, _MEMORY_LAYER)
    for name in ("self_attn.", "cross_attn_image."):
        rules += _below(layer + name, layer + name, _ATTENTION)
    for i in range(MASK_STRIDES):
        # A Sequential of convolution, norm and activation, four times, and a last convolution.
        rules += [Rule(f"{down}layers.{i}.conv.", f"{down}encoder.{3 * i}.")]
        rules += [Rule(f"{down}layers.{i}.layer_norm.", f"{down}encoder.{3 * i + 1}.")]
    rules += [Rule(f"{down}final_conv.", f"{down}encoder.{3 * MASK_STRIDES}.")]
    return rules + _below("memory_encoder.memory_fuser.layers.{}.", "memory_encoder.fuser.layers.{}.", _FUSER)


def gather(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], table: KeyTable, heads: Heads, source: str
) -> dict[str, Tensor]:
    """Every tensor of a checkpoint to its place.

    Args:
        state: the checkpoint.
        wanted: the segmenter's own tensors; only their shapes are looked at.
        source: for messages.

    Raises:
        ModelError: tensors are missing, left over, or of another shape; all are listed, by their names in the
            checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    faults: dict[str, None] = {}  # an ordered set: the parts of one tensor fail together
    used: set[str] = set()
    for name, like in wanted.items():
        place = table.place(name)
        if place is None:
            faults[f"no place for {name} in this layout"] = None
            continue
        keys = keys_of(place)
        used.update(keys)
        missing = [key for key in keys if key not in state]
        faults |= dict.fromkeys(f"missing {key}" for key in missing)
        if missing:
            continue
        tensor = _taken([state[key] for key in keys], place, heads)
        if tensor is None or tensor.shape != like.shape:
            shapes = ", ".join(str(tuple(state[key].shape)) for key in keys)
            faults[f"{place.key} has shape {shapes}, expected {tuple(like.shape)} for {name}"] = None
        else:
            tensors[name] = tensor
    faults |= dict.fromkeys(f"unexpected {name}" for name in sorted(state.keys() - used))
    if faults:
        raise ModelError(f"{source}: the weights do not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    return tensors


def scatter(state: Mapping[str, Tensor], table: KeyTable, heads: Heads, source: str) -> dict[str, Tensor]:
    """A segmenter's tensors as released checkpoints name them: what `gather` undoes.

    Raises:
        ModelError: the layout has no place for some of them, which are listed.
    """
    out: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[int, Tensor]] = {}
    homeless = []
    for name, tensor in state.items():
        place = table.place(name)
        if place is None:
            homeless.append(name)
        elif place.form == "rows":
            out |= {key: row[None].clone() for key, row in zip(keys_of(place), tensor, strict=True)}
        elif place.form in ("third", "grouped"):
            parts.setdefault((place.key, place.form), {})[place.part] = tensor
        else:
            out[place.key] = tensor
    if homeless:
        raise ModelError(f"{source}: the layout has no place for {', '.join(homeless)}")
    for (key, form), of_key in parts.items():
        three = [of_key[i] for i in range(3)]
        out[key] = torch.cat(three) if form == "third" else _interleaved(three, heads)
    return out


def keys_of(place: Place) -> list[str]:
    """The tensors that one of ours is made from."""
    return [place.key.replace("*", str(i)) for i in range(POINT_KINDS)] if place.form == "rows" else [place.key]


def _taken(tensors: list[Tensor], place: Place, heads: Heads) -> Tensor | None:
    if place.form == "rows":
        return torch.cat(tensors)  # [4, channels]
    (tensor,) = tensors
    if place.form == "third":
        return tensor.tensor_split(3)[place.part]
    if place.form == "grouped":
        per_group = heads.queries + 2  # its queries, a key and a value
        if tensor.shape[0] % (heads.groups * per_group):
            return None
        # Of each group its queries, its key, its value.
        grouped = tensor.reshape(heads.groups, per_group, -1, *tensor.shape[1:])
        chosen = (slice(0, heads.queries), slice(-2, -1), slice(-1, None))[place.part]
        return grouped[:, chosen].flatten(0, 2)  # [groups * chosen heads * dim, ...]
    return tensor


def _interleaved(three: list[Tensor], heads: Heads) -> Tensor:
    counts = (heads.queries, 1, 1)
    # [groups, count, dim, ...] each
    split = [part.reshape(heads.groups, count, -1, *part.shape[1:]) for part, count in zip(three, counts, strict=True)]
    return torch.cat(split, dim=1).flatten(0, 2)
