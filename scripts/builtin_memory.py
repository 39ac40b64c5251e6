"""Train the memory of the built-in segmenter's SAM 2: phrases found in some frames are followed in others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from deixis.data.clip_formats import read_clips
from deixis.data.pixels.tiles import squashed_mask
from deixis.inference.refer.track_frames import FramePrompter, TrackedPhrase
from deixis.inference.refer.tracker import Tracker
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import Sa2vaBundle, freeze
from deixis.models.sa2va.memory.attention import decode_next, see_decoded
from deixis.models.sa2va.memory.bank import MemoryBank
from deixis.video_records import Clip

LEARNING_RATE, CLIPS_PER_STEP = 1e-3, 2
FRAMES, PHRASES, PROMPT_FRAMES, MAX_STRIDE = 5, 3, 5, 3


def train_memory(bundle: Sa2vaBundle, data: str, steps: int) -> None:
    """Train the memory alone, in place, as one that keeps what phrases mean; everything else stays as it is."""
    sam = bundle.model.sam
    sam.config.keeps_phrases = True
    bundle.model.eval()
    freeze(bundle.model, ("memory",), lora=False)
    trained = [parameter for parameter in sam.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 20 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    prompter = Tracker(bundle, prompt_frames=PROMPT_FRAMES, max_tiles=1).prompter
    criterion, clips = ReferCriterion(points=None, weight_dice=2.0), read_clips(data)
    for step in range(steps):
        optimizer.zero_grad()
        ious = []
        for window in range(CLIPS_PER_STEP):
            rng = np.random.default_rng([0, step, window])
            losses = window_losses(prompter, criterion, clips[int(rng.integers(len(clips)))], rng)
            if losses:
                (criterion.total(losses) / CLIPS_PER_STEP).backward()
                ious.append(float(losses["iou"]))
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 20 == 0 or step + 1 == steps:
            print(f"memory: step {step + 1} of {steps}, IoU {np.mean(ious or [math.nan]):.3f}", flush=True)
    bundle.model.requires_grad_(False)


def window_losses(
    prompter: FramePrompter, criterion: ReferCriterion, clip: Clip, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Losses of a few frames of a clip that are followed, its phrases found in others as `deixis refer track` does.

    Empty where no phrase is found.
    """
    sam, frames = prompter.sam, clip.frames
    sentences = [(one, text) for one in clip.expressions for text in one.texts]
    chosen = [sentences[i] for i in rng.permutation(len(sentences))[:PHRASES]]
    followed = [TrackedPhrase(text, MemoryBank(sam, PROMPT_FRAMES, torch.float32)) for _, text in chosen]
    total = len(clip.labelled)
    spread = rng.permutation(np.unique(np.linspace(0, total - 1, PROMPT_FRAMES).round().astype(int)))
    asked = sorted(spread[: int(rng.integers(1, PROMPT_FRAMES + 1))].tolist())
    prompter.prompt(followed, list(zip(asked, frames.read([clip.labelled[i] for i in asked]), strict=True)))
    rows = [row for row, one in enumerate(followed) if one.bank.prompted]
    if not rows:
        return {}
    stride = int(rng.integers(1, 1 + min(MAX_STRIDE, (total - 1) // (FRAMES - 1))))
    first = int(rng.integers(total - stride * (FRAMES - 1)))
    run = list(range(first, first + stride * FRAMES, stride))
    banks, parts, truth = [followed[row].bank for row in rows], [], []
    for label, pixels in zip(run, frames.read([clip.labelled[i] for i in run]), strict=True):
        with torch.no_grad():
            levels = prompter.levels(sam, pixels)
        found = decode_next(sam, levels, banks, label)
        seen = see_decoded(sam, levels, found)
        for row, bank in enumerate(banks):
            bank.add(label, seen, row)
        parts.append(found)
        truth += [true_mask(clip, chosen[row][0], label, found.logits.shape[-1]) for row in rows]
    outputs = {
        "pred_masks": torch.cat([found.logits for found in parts]),
        "pred_ious": torch.cat([found.ious for found in parts]),
        "object_scores": torch.cat([found.object_scores for found in parts]),
        "point_logits": torch.cat([found.points for found in parts if found.points is not None]),
        "label_logits": torch.zeros(0, 1),
        "label_ids": torch.zeros(0, dtype=torch.long),
    }
    return criterion(outputs, torch.stack(truth), num_objects=len(truth), num_labels=1.0)


def true_mask(clip: Clip, expression: Any, label: int, side: int) -> Tensor:
    """An expression's mask in a labelled frame, on the grid of the losses; all false where it is not visible."""
    found = clip.masks_at(expression, label)
    if not found:
        return torch.zeros(side, side, dtype=torch.bool)
    merged = np.asarray(coco_mask.decode(coco_mask.merge(list(found))), dtype=bool)
    shares = F.adaptive_avg_pool2d(torch.from_numpy(squashed_mask(merged, 4 * side))[None].float(), side)[0]
    return (shares >= 0.5) | ((shares >= shares.amax()) & (shares > 0))  # at least the fullest cell
