"""SAM 2's configuration of a released Sa2VA checkpoint, whose config.json leaves it to the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from transformers import Sam2VideoConfig

from deixis.errors import ModelError
from deixis.models.sa2va.weights.layout import SAM_PREFIX

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


def sam_config(values: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> Sam2VideoConfig:
    """SAM 2 with its memory: as config.json says, or as the weights show.

    Raises:
        ModelError: an image encoder of unknown shape.
    """
    if SAM_KEY in values:
        return Sam2VideoConfig.from_dict(values[SAM_KEY])
    trunk = SAM_PREFIX + "image_encoder.trunk."
    # config.json of released models says nothing of SAM 2: width and depth tell its four sizes apart.
    blocks = _count(state, re.escape(trunk) + r"blocks\.(\d+)\.norm1\.weight")
    first = state.get(f"{trunk}patch_embed.proj.bias")
    width = 0 if first is None else len(first)
    if (width, blocks) not in HIERAS:
        raise ModelError(
            f"{source}: SAM 2's image encoder is {width} wide and has {blocks} blocks; expected one of {list(HIERAS)}"
        )
    hiera = HIERAS[width, blocks]
    widths = [width * 2**stage for stage in range(4)]
    # Width and heads double from stage to stage, while the side of the maps halves.
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
        # SAM 2.1 has both parts; SAM 2.0, as in released Sa2VA models, neither.
        enable_temporal_pos_encoding_for_object_pointers=_has(state, "obj_ptr_tpos_proj.weight"),
        enable_occlusion_spatial_embedding=_has(state, "no_obj_embed_spatial"),
    )


def _has(state: Iterable[str], name: str) -> bool:
    return SAM_PREFIX + name in state


def _count(state: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})
