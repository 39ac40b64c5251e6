"""A clip followed with gradients: some frames' masks given, all others found by memory, as inference does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.models.sa2va.memory import decode_next, see_decoded, see_masks
from deixis.models.sa2va.memory_bank import MemoryBank
from deixis.models.sa2va.sam import SamLevels


class Unrolled(NamedTuple):
    """What was found in the frames that were not given, frame by frame and in each of them object by object.

    Attributes:
        pred_masks, pred_ious, object_scores: as `Sa2va.forward` names them.
        frame, object_index: what each row is about.
    """

    pred_masks: Float[Tensor, "rows 3 side side"]
    pred_ious: Float[Tensor, "rows 3"]
    object_scores: Float[Tensor, " rows"]
    frame: Int[Tensor, " rows"]
    object_index: Int[Tensor, " rows"]


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
    followed = [frame for frame in range(len(frames)) if frame not in prompts]
    decoded = []
    for frame in followed:
        found = decode_next(sam, frames[frame], banks, frame)
        seen = see_decoded(sam, frames[frame], found)
        for row, bank in enumerate(banks):
            bank.add(frame, seen, row)
        decoded.append(found)
    rows = torch.arange(objects, device=levels[2].device)
    return Unrolled(
        torch.cat([found.logits for found in decoded]),
        torch.cat([found.ious for found in decoded]),
        torch.cat([found.object_scores for found in decoded]),
        torch.tensor(followed, device=rows.device).repeat_interleave(objects),
        rows.repeat(len(followed)),
    )
