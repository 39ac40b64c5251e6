"""Teach a segmenter's SAM 2 to follow objects through clips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deixis.console import Console
from deixis.data.clip_formats import read_clips
from deixis.data.refer.clip_phrase_windows import draw_phrase_window
from deixis.data.refer.clip_windows import draw_window
from deixis.errors import OptionError
from deixis.models.sa2va import Sa2vaBundle, load_sa2va, save_sa2va
from deixis.models.sa2va.memory.start import start_memory
from deixis.models.sa2va.small import with_memory
from deixis.options.refer_memory import ReferMemoryOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.refer.memory_answers import Answers
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.lock import run_lock
from deixis.training.memory import train_memory
from deixis.training.memory_phrases import phrase_losses
from deixis.video_records import ClipDataset

_LOOKED_AT = 8
"""Clips, for whether they have sentences."""


def train_memory_of(options: ReferMemoryOptions) -> Path:
    """Write the segmenter with its trained memory; the folder.

    Raises:
        DeixisError: options, clips or model cannot be used, or training goes nowhere.
    """
    options.check()
    with run_lock(options.output):
        return _train_memory_of(options)


def _train_memory_of(options: ReferMemoryOptions) -> Path:
    device = choose_device(options.device)
    dataset = read_clips(options.data, options.videos)
    bundle = _with_memory(load_sa2va(options.model), options)
    bundle.model.to(device).eval()
    console = Console(highlight=False)
    ious: deque[float] = deque(maxlen=options.log_interval)
    phrases = _keep_phrases(bundle, dataset, options)
    draw = _phrases(bundle, dataset, options, device) if phrases else _masks(bundle, dataset, options)
    how: dict[str, Any] = {"judge": phrase_losses, "supervised": "all"} if phrases else {}
    with ProgressBar("steps") as progress:

        def report(step: int, losses: dict[str, float]) -> None:
            ious.append(losses["iou"])
            progress(step + 1, options.steps)
            if (step + 1) % options.log_interval == 0:
                parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if name.startswith("loss_"))
                console.print(f"step {step + 1}  IoU {np.mean(ious):.3f}  {parts}", markup=False)

        rate, batch = options.learning_rate, options.batch_size
        skipped = train_memory(bundle, draw, options.steps, rate, batch, report=report, **how)
    bundle.model.sam.config.keeps_phrases = phrases
    save_sa2va(bundle, options.output)
    told = f" ({skipped} steps skipped)" if skipped else ""
    console.print(f"IoU of followed objects {np.mean(ious):.3f}{told}; wrote {options.output}", markup=False)
    return options.output


def _with_memory(bundle: Sa2vaBundle, options: ReferMemoryOptions) -> Sa2vaBundle:
    """The segmenter with the memory that training starts from."""
    torch.manual_seed(options.seed)
    bare = bundle.model.sam.config.model_type == "sam2"
    if bare:
        bundle = with_memory(bundle, layers=options.layers)
    if bare or options.fresh:
        start_memory(bundle.model.sam)
    return bundle


def _keep_phrases(bundle: Sa2vaBundle, dataset: ClipDataset, options: ReferMemoryOptions) -> bool:
    if options.given == "phrases" and bundle.behaviour == "sa2va":
        raise OptionError(
            f"{options.model} behaves as released Sa2VA, whose memory keeps no phrases; use --given masks"
        )
    if options.given != "auto":
        return options.given == "phrases"
    first = (dataset[index] for index in range(min(len(dataset), _LOOKED_AT)))
    return bundle.behaviour == "deixis" and any(one.texts for clip in first for one in clip.expressions)


def _masks(bundle: Sa2vaBundle, dataset: ClipDataset, options: ReferMemoryOptions) -> Callable[[int], Any]:
    def draw(position: int) -> Any:
        rng = np.random.default_rng([options.seed, position])
        return draw_window(dataset, bundle.sam_px, options.frames, options.objects, options.stride, rng)

    return draw


def _phrases(
    bundle: Sa2vaBundle, dataset: ClipDataset, options: ReferMemoryOptions, device: torch.device
) -> Callable[[int], Any]:
    answers = Answers(bundle, device)
    of_clip = partial(draw_phrase_window, dataset, bundle.sam_px, options.frames, options.objects, options.stride)

    def draw(position: int) -> Any:
        rng = np.random.default_rng([options.seed, position])
        return answers.asked(lambda seed: of_clip(options.prompt_frames, np.random.default_rng(seed)), rng)

    return draw
