"""SAM 2 asked by an embedding instead of by points: Sa2VA's way into the mask decoder.

Works on transformers' `Sam2Model` and `Sam2VideoModel` alike, which name these parts the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deixis.models.sa2va.pointing import dense_prompt, where_pointed
from deixis.models.sa2va.sam_protocol import Sam

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
        points: where prompts point, on the cells of the coarse level; None where they do not.
    """

    logits: Float[Tensor, "objects 3 side side"]
    ious: Float[Tensor, "objects 3"]
    object_scores: Float[Tensor, " objects"]
    points: Float[Tensor, "objects coarse coarse"] | None = None

    def of(self, objects: Any) -> Masks:
        """Those of some objects, by whatever indexes a tensor's rows."""
        points = None if self.points is None else self.points[objects]
        return Masks(self.logits[objects], self.ious[objects], self.object_scores[objects], points)


class Decoded(NamedTuple):
    """Everything that the mask decoder gives for each object.

    Attributes:
        logits, ious, object_scores, points: as in `Masks`; one mask instead of three where only one was wanted.
        tokens: the decoder's state behind each mask.
    """

    logits: Float[Tensor, "objects masks side side"]
    ious: Float[Tensor, "objects masks"]
    tokens: Float[Tensor, "objects masks sam_channels"]
    object_scores: Float[Tensor, " objects"]
    points: Float[Tensor, "objects coarse coarse"] | None = None


def encode_image(sam: Sam, pixels: Float[Tensor, "batch 3 side side"]) -> SamLevels:
    """The feature pyramid of images."""
    # All with `sam_channels`. The two finer ones go through conv_s0 and conv_s1 only later, in `sharp_levels`: these
    # belong to the mask decoder, which trains, and what is computed here may be cached.
    fine, middle, coarse = sam.vision_encoder(pixels, return_dict=True).fpn_hidden_states
    return fine, middle, coarse


def decode_masks(
    sam: Sam,
    prompts: Float[Tensor, "objects sam_channels"],
    levels: SamLevels,
    image_of_object: Int[Tensor, " objects"],
    objects_at_once: int | None = None,
) -> Masks:
    """Three masks for each prompt.

    The decoder sees two `not_a_point` tokens and the prompt, and no mask, unless prompts point first; the coarse level
    carries the embedding that says that there is no memory of earlier frames.

    Args:
        prompts: one embedding per object.
        levels: of every image, once.
        image_of_object: the image each object is in.
        objects_at_once: decode this many objects at a time and keep nothing of it for the backward pass, which computes
            it again; None keeps the activations of all.
    """
    fine, middle = sharp_levels(sam, levels)
    coarse = without_memory(sam, levels[2])
    blank = blank_tokens(sam, prompts.shape[0])
    sparse = torch.cat([blank, prompts[:, None].to(blank.dtype)], dim=1)  # [objects, 3, sam_channels]

    def decoded(sparse: Tensor, images: Tensor) -> Masks:
        here = coarse[images]  # [objects, sam_channels, coarse, coarse]: a copy for each object
        points = where_pointed(sam, sparse[:, -1], here)
        found = decode(sam, here, (fine[images], middle[images]), sparse, dense_prompt(sam, points))
        return Masks(found.logits, found.ious, found.object_scores, points)

    if objects_at_once is None:
        return decoded(sparse, image_of_object)
    stretches = zip(torch.split(sparse, objects_at_once), torch.split(image_of_object, objects_at_once), strict=True)
    # `checkpoint` keeps only the prompts of each stretch, and decodes them again in the backward pass.
    parts = [checkpoint(decoded, some, images, use_reentrant=False) for some, images in stretches]
    points = [part.points for part in parts if part.points is not None]
    return Masks(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.ious for part in parts]),
        torch.cat([part.object_scores for part in parts]),
        torch.cat(points) if points else None,
    )


def decode(
    sam: Sam,
    coarse: Float[Tensor, "objects sam_channels coarse coarse"],
    sharp: tuple[Tensor, Tensor],
    sparse: Float[Tensor, "objects tokens sam_channels"],
    dense: Float[Tensor, "objects_or_1 sam_channels _ _"],
    three: bool = True,
) -> Decoded:
    """The mask decoder on prompts of any kind.

    Args:
        coarse: features of each object's image, with a memory or with the embedding that there is none.
        sharp: of `sharp_levels`, one row per object.
        sparse, dense: prompts as tokens, and as a map that is added to the features.
        three: three masks, of which one is to be chosen; otherwise a single one.
    """
    # transformers decodes several prompts per image: [images, prompts, ...]. Here each object is an image with one
    # prompt, an axis that goes in by `[:, None]` and comes out by `[:, 0]`.
    logits, ious, tokens, object_scores = sam.mask_decoder(
        image_embeddings=coarse,
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),  # [1, sam_channels, coarse, coarse]
        sparse_prompt_embeddings=sparse[:, None],  # [objects, 1, tokens, sam_channels]
        dense_prompt_embeddings=dense,
        multimask_output=three,  # the last three of the decoder's four masks, or one
        high_resolution_features=list(sharp),
    )
    return Decoded(logits[:, 0], ious[:, 0], tokens[:, 0], object_scores[:, 0, 0])


def without_memory(
    sam: Sam, coarse: Float[Tensor, "images sam_channels coarse coarse"]
) -> Float[Tensor, "images sam_channels coarse coarse"]:
    """The coarse level as the mask decoder sees it where there is no memory of earlier frames."""
    bare: Tensor = coarse + sam.no_memory_embedding.reshape(1, -1, 1, 1)
    return bare


def sharp_levels(sam: Sam, levels: SamLevels) -> tuple[Tensor, Tensor]:
    """The two finer levels as the mask decoder adds them to what it enlarges: [images channels/8 ..], [.. /4 ..]."""
    return sam.mask_decoder.conv_s0(levels[0]), sam.mask_decoder.conv_s1(levels[1])


def blank_tokens(sam: Sam, objects: int) -> Float[Tensor, "objects 2 sam_channels"]:
    """What stands where SAM 2 has no points."""
    blank: Tensor = sam.prompt_encoder.not_a_point_embed.weight.expand(objects, 2, -1)
    return blank
