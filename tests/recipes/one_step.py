"""The gradient of a run's first optimiser step, alone or under torchrun.

one_step.py MODEL FOLDER 8x1 4x2     writes FOLDER/8x1.pt (batch size 8) and FOLDER/4x2.pt (two batches of 4)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from deixis.data.detect.collate import SampleDataset, collate_pairs
from deixis.data.detect.transforms import horizontal_flip, resize_to
from deixis.data.scenes.images import scenes
from deixis.losses.detection import build_criterion
from deixis.models.grounding_dino import load_grounding_dino
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.records import Sample
from deixis.training.feed import Feed
from deixis.training.loop import accumulate_gradients
from deixis.training.processes import make_accelerator, mean_figures
from deixis.training.tasks.detector import DetectorTask


def to_one_size(sample: Sample, generator: np.random.Generator) -> Sample:
    """Swin sees padding, so an image's features depend on what it is padded to: here, to nothing."""
    return horizontal_flip(resize_to(sample, (64, 80))) if generator.random() < 0.5 else resize_to(sample, (64, 80))


def first_step(model: Path, batch_size: int, accumulation: int, out: Path) -> None:
    """Write `{figures, gradients}` of the first step."""
    torch.set_num_threads(1)
    accelerator = make_accelerator(cpu=True)
    bundle = load_grounding_dino(model)
    prompts = TrainingPrompts(bundle.prompt_tokenizer, 256, shuffle=True)
    dataset = SampleDataset(scenes("demo_train", 8, 1), to_one_size, prompts, seed=0)
    task = DetectorTask(
        accelerator.prepare_model(bundle.model.train()),
        bundle.normalise,
        build_criterion("mm_grounding_dino", decoder_layers=2),
        feed=Feed(dataset=dataset, collate=collate_pairs, batch_size=batch_size, accumulation=accumulation),
        accelerator=accelerator,
        evaluate=dict,
        save_model=print,
    )
    group = next(task.groups(epoch=0, start=0))
    losses = accumulate_gradients(task, accelerator, group, normaliser=task.normaliser(group))
    figures = mean_figures(accelerator, losses)
    gradients = {name: weight.grad for name, weight in bundle.model.named_parameters()}
    if accelerator.is_main_process:
        torch.save({"figures": figures, "gradients": gradients}, out)


if __name__ == "__main__":
    model_folder, out_folder, *ways = sys.argv[1:]
    for way in ways:
        size, batches = map(int, way.split("x"))
        first_step(Path(model_folder), size, batches, Path(out_folder) / f"{way}.pt")
