"""SAM 2's memory over time (arXiv 2408.00714), on transformers' `Sam2VideoModel`, in bounded space.

    features of a frame ──memory attention──▶ mask decoder ──▶ mask ──memory encoder──▶ bank
                              ▲                    └──────▶ pointer ────────────────────▶ │
                              └──────────────────────────────────────────────────────────┘

Everything here carries gradients where gradients are on, so that the same steps train the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.sa2va.memory.bank import MemoryBank, Seen
from deixis.models.sa2va.pointing import dense_prompt, where_pointed
from deixis.models.sa2va.sam import Decoded, SamLevels, blank_tokens, decode, sharp_levels, without_memory
from deixis.models.sa2va.sam_protocol import SamWithMemory

ABSENT_LOGIT = -1024.0
MASK_SCALE, MASK_BIAS = 20.0, -10.0
"""A mask given as a prompt stands for logits of +10 and -10."""


def see_masks(
    sam: SamWithMemory,
    levels: SamLevels,
    masks: Bool[Tensor, "objects image image"],
    meanings: Float[Tensor, "objects sam_channels"] | None = None,
) -> Seen:
    """A frame whose masks are known: they are remembered as they are.

    Args:
        levels: of the one frame.
        masks: on SAM 2's square, in its full size; all false for an object that is not in the frame.
        meanings: embeddings of the objects' phrases, for a memory that keeps them; they shape the pointers.
    """
    dtype = levels[2].dtype
    given = masks[:, None].to(dtype)  # [objects, 1, side, side]
    logits = MASK_SCALE * given + MASK_BIAS
    small = F.interpolate(  # [objects, 1, side / 4, side / 4]
        logits.float(), sam.prompt_encoder.mask_input_size, mode="bilinear", align_corners=False, antialias=True
    ).to(dtype)
    dense = sam.prompt_encoder.mask_embed(sam.mask_downsample(given))  # [objects, channels, side / 16, side / 16]
    # Bare, without even the embedding that there is no memory: as in Meta's `_use_mask_as_output`.
    coarse = levels[2].expand(len(masks), -1, -1, -1)
    # A mask alone leaves nothing to choose: its pointer is the single mask's, as in Meta's code (not transformers').
    found = _decoded(sam, levels, coarse, dense, _sparse(sam, len(masks), meanings), three=meanings is not None)
    there = masks.flatten(1).any(1).to(dtype)  # [objects]
    # Twice, as SAM 2 does: by the decoder's word, and by whether the mask has any pixel.
    pointers = _hidden_pointers(sam, _pointers(sam, found), there)
    scores = MASK_SCALE * there + MASK_BIAS
    return Seen(small[:, 0], torch.ones_like(there), scores, _remembered(sam, levels[2], given[:, 0], scores), pointers)


def see_prompts(
    sam: SamWithMemory, levels: SamLevels, prompts: Float[Tensor, "objects sam_channels"], suppress: bool = True
) -> Seen:
    """A frame whose objects are asked for by embeddings, as in `decode_masks`, and remembered as decoded."""
    coarse = without_memory(sam, levels[2]).expand(len(prompts), -1, -1, -1)  # [objects, channels, coarse, coarse]
    sparse, dense = _sparse(sam, len(prompts), prompts), dense_prompt(sam, where_pointed(sam, prompts, coarse))
    sharp = tuple(level.expand(len(prompts), -1, -1, -1) for level in sharp_levels(sam, levels))
    return see_decoded(sam, levels, decode(sam, coarse, (sharp[0], sharp[1]), sparse, dense), suppress)


def see_next(
    sam: SamWithMemory, levels: SamLevels, banks: Sequence[MemoryBank], frame: int, suppress: bool = True
) -> Seen:
    """A frame in which nothing is given: each object is found by its memory.

    Args:
        levels: of the one frame.
        banks: one per object, none of them empty.
        frame: its number, which the banks count from.
        suppress: an object whose score says that it is absent gets an empty mask (SAM 2's way; not Sa2VA's).
    """
    return see_decoded(sam, levels, decode_next(sam, levels, banks, frame), suppress)


def decode_next(sam: SamWithMemory, levels: SamLevels, banks: Sequence[MemoryBank], frame: int) -> Decoded:
    """All masks that the decoder gives for each object of `see_next`.

    Where the banks keep what their phrases mean, the decoder is asked by it as in an image, on top of the memory.
    """
    coarse = recall(sam, levels[2], banks, frame)
    settings = sam.config
    three = settings.multimask_output_for_tracking and settings.multimask_output_in_sam
    # SAM 2 gives three masks only for few points; a tracked frame has none, so 0 must be in the range.
    three = three and settings.multimask_min_pt_num <= 0 <= settings.multimask_max_pt_num
    kept = [meaning for bank in banks if (meaning := bank.meaning()) is not None]
    meanings = torch.stack(kept) if len(kept) == len(banks) else None
    # One object without a phrase, and all are asked without: they go through the decoder together.
    points = where_pointed(sam, meanings, coarse)
    found = _decoded(sam, levels, coarse, dense_prompt(sam, points), _sparse(sam, len(banks), meanings), three)
    return found._replace(points=points)


def see_decoded(sam: SamWithMemory, levels: SamLevels, found: Decoded, suppress: bool = True) -> Seen:
    """Of the masks of each object the best, and how it is remembered."""
    best, every = found.ious.argmax(1), torch.arange(len(found.ious), device=found.ious.device)
    logits = found.logits[every, best]  # [objects, side / 4, side / 4]
    if suppress:
        logits = logits.where((found.object_scores > 0)[:, None, None], ABSENT_LOGIT)
    side = [4 * small for small in sam.prompt_encoder.mask_input_size]
    # [objects, side, side]: what the memory encoder takes
    large = F.interpolate(logits[:, None].float(), side, mode="bilinear", align_corners=False)[:, 0]
    spatial = _remembered(sam, levels[2], large.to(logits.dtype).sigmoid(), found.object_scores)
    return Seen(logits, found.ious[every, best], found.object_scores, spatial, _pointers(sam, found))


def recall(
    sam: SamWithMemory, coarse: Float[Tensor, "1 sam_channels h w"], banks: Sequence[MemoryBank], frame: int
) -> Float[Tensor, "objects sam_channels h w"]:
    """A frame's features after they have attended to each object's memory.

    Objects that remember equally much go through together.

    Raises:
        ModelError: nothing is known of an object.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    memories = []
    for index, bank in enumerate(banks):
        spatial, pointers = bank.recalled(frame)
        if not spatial:
            raise ModelError(f"object {index} was never prompted; prompt it in some frame before it is tracked")
        memories.append((places(sam, coarse, spatial), pointer_tokens(sam, coarse, pointers)))
        groups.setdefault((len(spatial), len(pointers)), []).append(index)
    here = coarse.flatten(2).permute(2, 0, 1)  # [cells, 1, channels]: SAM 2's memory attention has the batch second
    where = positions(sam.vision_encoder.neck.position_encoding, coarse)[:, None]  # [cells, 1, channels]
    out: dict[int, Tensor] = {}
    for members in groups.values():
        # For each object its memories' tokens and then its pointers', and likewise their positions.
        joined = [[torch.cat(parts) for parts in zip(*memories[index], strict=True)] for index in members]
        # [tokens, members, memory channels]
        memory, when = (torch.stack(parts, dim=1) for parts in zip(*joined, strict=True))
        # The last tokens are pointers, which have no place in the frame: they get no rotary position.
        last = len(memories[members[0]][1][0])
        many = len(members)
        attended = sam.memory_attention(here.expand(-1, many, -1), memory, where.expand(-1, many, -1), when, last)
        # [1, members, cells, channels] from transformers; each [channels, cells] here
        out |= dict(zip(members, attended.reshape(many, *here.shape[::2]).transpose(1, 2), strict=True))
    flat = torch.stack([out[index] for index in range(len(banks))])  # [objects, channels, cells]
    return flat.view(*flat.shape[:2], *coarse.shape[2:])


def _decoded(
    sam: SamWithMemory, levels: SamLevels, coarse: Tensor, dense: Tensor, sparse: Tensor, three: bool = True
) -> Decoded:
    """The mask decoder without points: of each object's features, all of the same frame."""
    fine, middle = (level.expand(len(coarse), -1, -1, -1) for level in sharp_levels(sam, levels))
    return decode(sam, coarse, (fine, middle), sparse, dense, three)


def _sparse(sam: SamWithMemory, objects: int, meanings: Tensor | None) -> Float[Tensor, "objects tokens sam_channels"]:
    """No points, and what each object's phrase means where that is given."""
    blank = blank_tokens(sam, objects)
    return blank if meanings is None else torch.cat([blank, meanings[:, None].to(blank.dtype)], dim=1)


def _pointers(sam: SamWithMemory, found: Decoded) -> Float[Tensor, "objects sam_channels"]:
    best, every = found.ious.argmax(1), torch.arange(len(found.ious), device=found.ious.device)
    pointers = sam.object_pointer_proj(found.tokens[every, best])
    return _hidden_pointers(sam, pointers, (found.object_scores > 0).to(pointers.dtype))


def _hidden_pointers(sam: SamWithMemory, pointers: Tensor, there: Tensor) -> Tensor:
    hidden: Tensor = there[:, None] * pointers + (1 - there[:, None]) * sam.no_object_pointer
    return hidden


def _remembered(
    sam: SamWithMemory,
    coarse: Tensor,
    shares: Float[Tensor, "objects image image"],
    object_scores: Float[Tensor, " objects"],
) -> Float[Tensor, "objects cells memory_channels"]:
    """The memory encoder on masks in [0, 1]."""
    # [objects, 1, side, side], from -10 to 10 in SAM 2
    masks = sam.config.sigmoid_scale_for_mem_enc * shares[:, None] + sam.config.sigmoid_bias_for_mem_enc
    # [objects, memory channels, coarse, coarse]
    memory, _ = sam.memory_encoder(coarse.expand(len(shares), -1, -1, -1), masks.to(coarse.dtype))
    occluded = sam.occlusion_spatial_embedding_parameter
    if occluded is not None:
        # SAM 2.1: what was hidden is marked
        memory = memory + (object_scores <= 0).to(memory.dtype)[:, None, None, None] * occluded[..., None, None]
    flat: Tensor = memory.flatten(2).transpose(1, 2)  # [objects, cells, memory channels]
    return flat


SINE_BASE = 10_000


def places(
    sam: SamWithMemory, coarse: Tensor, spatial: Sequence[tuple[int, Tensor]]
) -> tuple[Float[Tensor, "cells c"], Float[Tensor, "cells c"]]:
    """Memories one after another, and where and when each cell is."""
    encoder = sam.memory_encoder
    grid = coarse.new_empty(1, spatial[0][1].shape[1], *coarse.shape[2:])
    where = positions(encoder.position_encoding, grid)  # [cells, c]
    when = sam.memory_temporal_positional_encoding[:, 0]  # [num_maskmem, 1, c]
    # Prompted frames are 0 frames ago and take the last row.
    places = [where + when[ago - 1].to(where.dtype) for ago, _ in spatial]
    return torch.cat([memory.to(coarse.dtype) for _, memory in spatial]), torch.cat(places)


def pointer_tokens(
    sam: SamWithMemory, coarse: Tensor, pointers: Sequence[tuple[int, Tensor]]
) -> tuple[Float[Tensor, "tokens c"], Float[Tensor, "tokens c"]]:
    """Pointers cut into tokens of the memory's width, and when each was."""
    width = int(sam.mem_dim)
    if not pointers:
        return coarse.new_zeros(0, width), coarse.new_zeros(0, width)
    stacked = torch.stack([pointer for _, pointer in pointers]).to(coarse.dtype)
    pieces = max(1, stacked.shape[1] // width)  # a pointer of 256 channels is 4 tokens of 64
    if sam.config.enable_temporal_pos_encoding_for_object_pointers:
        most = float(sam.config.max_object_pointers_in_encoder - 1)
        # [pointers], in [0, 1]
        ago = torch.tensor([ago for ago, _ in pointers], device=coarse.device, dtype=torch.float32) / most
        when = sam.temporal_positional_encoding_projection_layer(_sine(ago, stacked.shape[1]).to(coarse.dtype))
    else:
        when = stacked.new_zeros(len(stacked), width)  # SAM 2.0: pointers have no time
    return stacked.reshape(-1, width), when.repeat_interleave(pieces, dim=0)  # [pointers * pieces, c] each


def _sine(values: Float[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    half = torch.arange(width // 2, device=values.device, dtype=torch.float32)
    # [n, width / 2]; neighbours share a wavelength, as in Meta's code
    waves = values[:, None] / SINE_BASE ** (2 * (half // 2) / (width // 2))
    return torch.cat([waves.sin(), waves.cos()], dim=1)


def positions(encoding: Any, grid: Tensor) -> Float[Tensor, "cells c"]:
    positions: Tensor = encoding(grid[:1].shape, grid.device, grid.dtype)
    return positions[0].flatten(1).T
