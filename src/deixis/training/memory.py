"""What SAM 2's memory learns from a clip: to find in other frames what was given in some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import SamLevels
from deixis.models.sa2va.unroll import unroll


def memory_losses(
    sam: Any,
    criterion: ReferCriterion,
    levels: SamLevels,
    masks: Bool[Tensor, "frames objects image image"],
    prompt_frames: Sequence[int] = (0,),
    num_objects: float | None = None,
) -> dict[str, Tensor]:
    """The criterion's losses over all frames that were not given, as of so many objects; `loss_language` is 0.

    Args:
        sam: transformers' `Sam2VideoModel`.
        levels: of the clip's frames.
        masks: the truth, on SAM 2's square in full size; all false where an object is not to be seen.
        prompt_frames: whose masks are given. Every object is to be seen in one of them.
        num_objects: what the sums are divided by; by default frames times objects.

    Raises:
        ModelError: an object is to be seen in none of the prompted frames.
    """
    found = unroll(sam, levels, {frame: masks[frame] for frame in prompt_frames})
    truth = masks[found.frame, found.object_index]
    side = found.pred_masks.shape[-1]
    shares = F.adaptive_avg_pool2d(truth[:, None].float(), side)[:, 0]
    # At least the fullest cell: what is too small for the grid is not absent.
    grid = (shares >= 0.5) | ((shares >= shares.flatten(1).amax(1)[:, None, None]) & (shares > 0))
    outputs = {
        "pred_masks": found.pred_masks,
        "pred_ious": found.pred_ious,
        "object_scores": found.object_scores,
        "label_logits": found.pred_masks.new_zeros(0, 1),
        "label_ids": torch.zeros(0, dtype=torch.long, device=truth.device),
    }
    return criterion(outputs, grid, max(len(grid), 1) if num_objects is None else num_objects, 1.0)
