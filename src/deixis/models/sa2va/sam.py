"""SAM 2 asked by an embedding instead of by points: Sa2VA's way into the mask decoder.

Works on transformers' `Sam2Model` and `Sam2VideoModel` alike, which name these parts the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SamLevels = tuple[
    Float[Tensor, "images sam_channels fine fine"],
    Float[Tensor, "images sam_channels middle middle"],
    Float[Tensor, "images sam_channels coarse coarse"],
]
"""SAM 2's feature pyramid, strides 4, 8 and 16, before anything of the mask decoder has touched it."""


class Masks(NamedTuple):
    """What the mask decoder says of each object.

    Attributes:
        logits: three masks, of which one is to be chosen.
        ious: the IoU it expects of each of them, in [0, 1] (a sigmoid is applied).
        object_scores: logit of whether there is anything at all.
    """

    logits: Float[Tensor, "objects 3 side side"]
    ious: Float[Tensor, "objects 3"]
    object_scores: Float[Tensor, " objects"]


def encode_image(sam: Any, pixels: Float[Tensor, "batch 3 side side"]) -> SamLevels:
    """The feature pyramid of images."""
    fine, middle, coarse = sam.vision_encoder(pixels, return_dict=True).fpn_hidden_states
    return fine, middle, coarse


def decode_masks(
    sam: Any,
    prompts: Float[Tensor, "objects sam_channels"],
    levels: SamLevels,
    image_of_object: Int[Tensor, " objects"],
) -> Masks:
    """Three masks for each prompt.

    The decoder sees two `not_a_point` tokens and the prompt, and no mask; the coarse level carries the embedding
    that says that there is no memory of earlier frames.

    Args:
        prompts: one embedding an object.
        levels: of every image, once.
        image_of_object: the image each object is in.
    """
    decoder, prompt_encoder = sam.mask_decoder, sam.prompt_encoder
    fine, middle = decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])
    coarse = levels[2] + sam.no_memory_embedding.reshape(1, -1, 1, 1)
    blank = prompt_encoder.not_a_point_embed.weight.expand(len(prompts), 2, -1)
    sparse = torch.cat([blank, prompts[:, None].to(blank.dtype)], dim=1)
    logits, ious, _, object_scores = decoder(
        image_embeddings=coarse[image_of_object],
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse[:, None],
        dense_prompt_embeddings=prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
        multimask_output=True,
        high_resolution_features=[fine[image_of_object], middle[image_of_object]],
    )
    return Masks(logits[:, 0], ious[:, 0], object_scores[:, 0, 0])
