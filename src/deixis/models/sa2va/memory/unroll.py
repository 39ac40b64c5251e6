"""A clip followed with gradients: some frames' masks given, all others found by memory, as inference does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.models.sa2va.memory.attention import decode_next, see_decoded, see_masks
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.models.sa2va.sam import SamLevels


class Unrolled(NamedTuple):
    """What was found in the frames that were not given, frame by frame and in each of them object by object.

    Attributes:
        pred_masks, pred_ious, object_scores, point_logits: as `Sa2va.forward` names them; None where none points.
        frame, object_index: what each row is about.
    """

    pred_masks: Float[Tensor, "rows 3 side side"]
    pred_ious: Float[Tensor, "rows 3"]
    object_scores: Float[Tensor, " rows"]
    frame: Int[Tensor, " rows"]
    object_index: Int[Tensor, " rows"]
    point_logits: Float[Tensor, "rows h w"] | None = None


def unroll(sam: Any, levels: SamLevels, prompts: Mapping[int, Bool[Tensor, "objects image image"]]) -> Unrolled:
    """Follow objects through a clip.

    Gradients go back through every frame. Memories are of what was found, not of what is true, so that training sees
    the mistakes that inference will.

    Args:
        sam: transformers' `Sam2VideoModel`.
        levels: of all frames.
        prompts: by frame, on SAM 2's square in full size. An object whose mask is empty there is not given there;
            somewhere it must be.

    Raises:
        ModelError: an object is given nowhere, or there is no memory.
    """
    objects = len(next(iter(prompts.values())))
    banks = [MemoryBank(sam, len(prompts), levels[2].dtype) for _ in range(objects)]
    frames = list(zip(*(torch.split(level, 1) for level in levels), strict=True))
    for frame, masks in prompts.items():
        given = see_masks(sam, frames[frame], masks)
        for row in torch.where(masks.flatten(1).any(1))[0].tolist():
            banks[row].prompt(frame, given, row)
    return follow(sam, {frame: frames[frame] for frame in range(len(frames)) if frame not in prompts}, banks)


class Given(NamedTuple):
    """One frame in which phrases were looked for.

    Attributes:
        masks: on SAM 2's square in full size, empty where a phrase means nothing.
        meanings: the embeddings of the phrases' `[SEG]`.
    """

    levels: SamLevels
    masks: Bool[Tensor, "objects image image"]
    meanings: Float[Tensor, "objects sam_channels"]


def unroll_phrases(sam: Any, given: Mapping[int, Given], frames: Mapping[int, SamLevels]) -> Unrolled:
    """Follow phrases that keep their meaning; what was looked for is evidence, and an empty mask is, too.

    Args:
        given: by frame, wherever it lies.
        frames: to follow in this order, by number; they may be among the given ones.
    """
    objects = len(next(iter(given.values())).masks)
    banks = [MemoryBank(sam, len(given), torch.float32) for _ in range(objects)]
    for frame, (levels, masks, meanings) in given.items():
        seen = see_masks(sam, levels, masks, meanings)
        for row, bank in enumerate(banks):
            bank.prompt(frame, seen, row, meanings[row])
    return follow(sam, frames, banks)


def follow(sam: Any, frames: Mapping[int, SamLevels], banks: Sequence[MemoryBank]) -> Unrolled:
    """What the banks' objects are in some frames, each remembered as it was found."""
    decoded = []
    for frame, levels in frames.items():
        found = decode_next(sam, levels, banks, frame)
        seen = see_decoded(sam, levels, found)
        for row, bank in enumerate(banks):
            bank.add(frame, seen, row)
        decoded.append(found)
    rows = torch.arange(len(banks), device=decoded[0].logits.device)
    points = [found.points for found in decoded if found.points is not None]
    return Unrolled(
        torch.cat([found.logits for found in decoded]),
        torch.cat([found.ious for found in decoded]),
        torch.cat([found.object_scores for found in decoded]),
        torch.tensor(list(frames), device=rows.device).repeat_interleave(len(banks)),
        rows.repeat(len(frames)),
        torch.cat(points) if points else None,
    )
