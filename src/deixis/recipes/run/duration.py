"""How long a run will take, from a few of its steps: a dry run does them with weights that are thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch

from deixis.recipes.run.data import RunData
from deixis.recipes.run.plan import counted
from deixis.recipes.run.training import Job, Start
from deixis.training.loop import accumulate_gradients
from deixis.training.processes import mean_figures
from deixis.training.validation import spread_evenly

STEPS = 3  # of which the first warms up (kernels are compiled, loaders start) and does not count
MAX_SECONDS = 30.0  # of the others; one that takes longer is measured alone
IMAGES = 8  # of an evaluation


def print_duration(
    start: Start,
    job: Job,
    data: RunData[Any],
    evaluate: Callable[[Sequence[int]], object],
    *,
    loss_images: int,
    max_images: int | None = None,
) -> None:
    """Do a few steps, evaluate a few images, and print how long the whole run takes at that speed.

    It changes the weights and takes the memory of a run, so a batch that does not fit is found here.

    Args:
        evaluate: evaluates validation images, by their positions.
        loss_images: of an evaluation, for validation losses; taken to be as fast as its metrics.
        max_images: evaluated of each data set; None for all.
    """
    validation, test = (min(len(part), max_images or len(part)) if part else 0 for part in (data.validation, data.test))
    all_steps = _seconds_of_steps(start, job)
    images = spread_evenly(validation, IMAGES)
    with start.accelerator.autocast():
        evaluate(images[:1])  # warms up
        began = time.perf_counter()
        evaluate(images[start.accelerator.process_index :: start.accelerator.num_processes])
    # the processes share the images: this is the time of the run per image
    per_image = _same_everywhere(start, time.perf_counter() - began) / len(images)

    measured = all_steps[1:] or all_steps
    per_step = sum(measured) / len(measured)
    stop, per_epoch = job.settings.stop_after_epochs, job.task.steps_per_epoch
    steps = job.total_steps if stop is None else min(job.total_steps, stop * per_epoch)
    evaluations = math.ceil(math.ceil(steps / per_epoch) / job.settings.evaluate_every) + job.baseline
    per_evaluation = per_image * (validation + min(loss_images, validation))
    # test data are measured for the best epoch, for the last, and with a baseline before training
    of_test = per_image * test * (2 + job.baseline)
    start.console.print(
        f"time        about {_in_words(steps * per_step + evaluations * per_evaluation + of_test)}: "
        f"{counted(steps, 'step')} of {_in_words(per_step)}, {counted(evaluations, 'evaluation')} of "
        f"{_in_words(per_evaluation)}; measured here on {counted(len(measured), 'step')} and "
        f"{counted(len(images), 'image')}",
        markup=False,
    )


def _seconds_of_steps(start: Start, job: Job) -> list[float]:
    """Seconds of each of the first steps of a run, loading included."""
    task, optimizer, found = job.task, job.adamw(), list[float]()
    task.model.train()
    began = time.perf_counter()
    for group in islice(task.groups(0, 0), STEPS):
        losses = accumulate_gradients(task, start.accelerator, group, normaliser=task.normaliser(group))
        start.accelerator.clip_grad_norm_(task.model.parameters(), job.settings.clip_norm)
        if losses["loss"].isfinite():  # waits for the device
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.append(_same_everywhere(start, time.perf_counter() - began))
        if sum(found[1:]) > MAX_SECONDS:
            break
        began = time.perf_counter()
    task.model.eval()
    return found


def _same_everywhere(start: Start, seconds: float) -> float:
    """The mean over processes, so that all of them decide alike."""
    figures = {"seconds": torch.tensor(seconds, device=start.accelerator.device)}
    return mean_figures(start.accelerator, figures)["seconds"]


def _in_words(seconds: float) -> str:
    """A duration, rounded.

    >>> _in_words(0.042), _in_words(8.21), _in_words(400), _in_words(20_000)
    ('0.042 s', '8.2 s', '7 min', '5.6 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
