"""Teach a segmenter's SAM 2 to follow objects through clips."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from deixis.data.clip_readers import read_clips
from deixis.data.clip_windows import Window, draw_window
from deixis.models.sa2va import load_sa2va, save_sa2va
from deixis.models.small_segmenter import with_memory
from deixis.recipes.devices import choose_device
from deixis.recipes.memory_options import ReferMemoryOptions
from deixis.recipes.progress import progress_bar
from deixis.training.memory import train_memory


def train_memory_of(options: ReferMemoryOptions) -> Path:
    """Write the segmenter with its trained memory; the folder.

    Raises:
        DeixisError: options, clips or model cannot be used, or training goes nowhere.
    """
    options.check()
    device = choose_device(options.device)
    dataset = read_clips(options.data, options.videos)
    bundle = load_sa2va(options.model)
    if bundle.model.sam.config.model_type == "sam2":
        torch.manual_seed(options.seed)
        bundle = with_memory(bundle, layers=options.layers)
    bundle.model.to(device).eval()
    console = Console(highlight=False)
    ious: deque[float] = deque(maxlen=options.log_interval)

    def draw(position: int) -> Window:
        rng = np.random.default_rng([options.seed, position])
        return draw_window(dataset, bundle.sam_px, options.frames, options.objects, options.stride, rng)

    with progress_bar("steps") as progress:

        def report(step: int, losses: dict[str, float]) -> None:
            ious.append(losses["iou"])
            progress(step + 1, options.steps)
            if (step + 1) % options.log_interval == 0:
                parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if name.startswith("loss_"))
                console.print(f"step {step + 1}  IoU {np.mean(ious):.3f}  {parts}", markup=False)

        skipped = train_memory(bundle, draw, options.steps, options.learning_rate, options.batch_size, report=report)
    save_sa2va(bundle, options.output)
    told = f" ({skipped} steps skipped)" if skipped else ""
    console.print(f"IoU of followed objects {np.mean(ious):.3f}{told}; wrote {options.output}", markup=False)
    return options.output
