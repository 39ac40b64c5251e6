"""What SAM 2's memory learns from a clip: to find in other frames what was given in some."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from deixis.data.refer.clip_windows import Window
from deixis.errors import TrainingError
from deixis.losses.refer import ReferCriterion, Supervised
from deixis.models.sa2va import Sa2vaBundle, SamLevels, freeze
from deixis.models.sa2va.memory.unroll import Unrolled, unroll
from deixis.models.sa2va.sam import encode_image

HOPELESS = 5
"""Steps on end without a finite gradient after which training stops."""
WEIGHT_DICE = 2.0
"""Objects that are followed are small: by cross-entropy alone a random memory learns first to say nothing anywhere."""


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
    return followed_losses(criterion, found, masks[found.frame, found.object_index], num_objects)


def followed_losses(
    criterion: ReferCriterion,
    found: Unrolled,
    truth: Bool[Tensor, "rows image image"],
    num_objects: float | None = None,
) -> dict[str, Tensor]:
    """The criterion's losses of what was found, with the truth of each of its rows."""
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
    if found.point_logits is not None:
        outputs["point_logits"] = found.point_logits
    return criterion(outputs, grid, max(len(grid), 1) if num_objects is None else num_objects, 1.0)


def window_losses(bundle: Sa2vaBundle, criterion: ReferCriterion, window: Window) -> dict[str, Tensor]:
    """`memory_losses` of a window."""
    sam, device = bundle.model.sam, next(bundle.model.parameters()).device
    with torch.no_grad():
        levels = encode_image(sam, bundle.normalise_sam(torch.from_numpy(window.pixels).to(device)))
    return memory_losses(sam, criterion, levels, torch.from_numpy(window.masks).to(device), window.prompt_frames)


def train_memory(
    bundle: Sa2vaBundle,
    draw: Callable[[int], Any],
    steps: int,
    learning_rate: float,
    clips_per_step: int = 2,
    clip_norm: float = 1.0,
    report: Callable[[int, dict[str, float]], None] | None = None,
    judge: Callable[[Sa2vaBundle, ReferCriterion, Any], dict[str, Tensor]] = window_losses,
    supervised: Supervised = "best",
) -> int:
    """Train the memory alone, in place; everything else stays as it is, and so do masks in images.

    AdamW, a twentieth of the steps to warm up, then a cosine down to nothing. A step whose gradient is not finite is
    skipped.

    Args:
        draw: the window of a position, the same whenever it is asked for.
        judge: the losses of a window.
        supervised: of the decoder's three masks, see `ReferCriterion`.
        report: called with the step and its losses, each the mean of the step's windows.

    Returns:
        Steps that were skipped.

    Raises:
        TrainingError: five steps on end were not finite; the windows are named.
    """
    freeze(bundle.model, ("memory",), lora=False)
    trained = [parameter for parameter in bundle.model.sam.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    criterion = ReferCriterion(points=None, weight_dice=WEIGHT_DICE, supervised=supervised)
    skipped = in_a_row = 0
    for step in range(steps):
        rate = min(1.0, (step + 1) / max(1, steps // 20)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate
        windows = [draw(step * clips_per_step + clip) for clip in range(clips_per_step)]
        optimiser.zero_grad()
        means = _backward(criterion, (judge(bundle, criterion, window) for window in windows), clips_per_step)
        if math.isfinite(float(torch.nn.utils.clip_grad_norm_(trained, clip_norm))):
            optimiser.step()
            in_a_row = 0
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            if in_a_row == HOPELESS:
                named = ", ".join(sorted({window.source for window in windows}))
                raise TrainingError(f"step {step}: {HOPELESS} gradients on end are not finite; the last of {named}")
        if report is not None:
            report(step, means)
    bundle.model.requires_grad_(False)
    return skipped


def _backward(criterion: ReferCriterion, judged: Iterable[dict[str, Tensor]], windows: int) -> dict[str, float]:
    """The gradients of the mean over a step's windows, one window at a time; the losses' means."""
    means: dict[str, float] = {}
    for losses in judged:
        torch.autograd.backward(criterion.total(losses) / windows)
        for name, value in losses.items():
            means[name] = means.get(name, 0.0) + float(value.detach()) / windows
    return means
