"""The part of fine-tuning that is the same for every model: a folder, an identity, the run, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from deixis.console import Console
from deixis.errors import Terminated
from deixis.options.old_names import current_values
from deixis.options.yaml_files import plain_values
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.data import RunData
from deixis.recipes.run.digest import weights_digest
from deixis.recipes.run.folder import RunOptions, keep_options, prepare_folder, run_folder
from deixis.training.checkpoint import Identity, Progress, load_checkpoint
from deixis.training.ema import WeightAverage
from deixis.training.guard import GradientWatch
from deixis.training.loop import LoopSettings, Run, Task, measure_baseline, save, train
from deixis.training.metric_logs import Trackers
from deixis.training.processes import peak_memory_text
from deixis.training.schedule import Schedule
from deixis.training.signals import StopSignal

MeasureTest = Callable[[Path | None], Mapping[str, Any]]
"""Metrics on test data of the model in a folder, or of the run's own as it is."""


def open_run(options: RunOptions, accelerator: Accelerator, resuming: bool) -> Path:
    """The folder of the run, made or emptied by the first process while the others wait.

    Raises:
        TrainingError: it cannot be written.
    """
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        prepare_folder(options, resuming)
    accelerator.wait_for_everyone()
    return run_folder(options)


def run_identity(
    options: RunOptions, may_change: set[str], model: nn.Module, data: RunData[Any], fingerprint: Any, processes: int
) -> Identity:
    """What a resumed run is compared by.

    Args:
        may_change: options that change neither weights nor metrics.
        fingerprint: a data set to a text that is the same for the same content.
    """
    facts = {
        "model_weights": weights_digest(model),
        "training_data": fingerprint(data.training),
        "validation_data": fingerprint(data.validation),
        "processes": processes,
    }
    if data.test is not None:
        facts["test_data"] = fingerprint(data.test)
    given, defaults = (
        {name: value for name, value in plain_values(one).items() if name not in may_change}
        for one in (options, type(options)())
    )
    return Identity(given, facts, defaults, partial(current_values, type(options)))


def run_training(
    task: Task,
    model: nn.Module,
    folder: Path,
    settings: LoopSettings,
    accelerator: Accelerator,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    average: WeightAverage | None,
    identity: Identity,
    console: Console,
    resuming: bool,
    options: RunOptions,
    baseline: bool,
    measure_test: MeasureTest | None = None,
) -> dict[str, str]:
    """Train to the end, from the start or from `checkpoints/last`, and report what it took.

    Args:
        model: the task's, as it was before `Accelerator.prepare`.
        baseline: evaluate before the first step of a run that is not resumed.
        measure_test: metrics on test data, which are logged before training, of the best weights and of the last.

    Returns:
        What the run took, for its report.

    Raises:
        TrainingError, Terminated: see `training.loop.train` and `training.checkpoint.load_checkpoint`.
    """
    progress = Progress()
    if resuming:
        last = folder / "checkpoints" / "last"
        progress = load_checkpoint(last, model, optimizer, average, identity)
        if accelerator.is_main_process:  # a longer run, or one with other workers, is resumed as it is now
            keep_options(options, folder)
        console.print(f"resuming {last} at epoch {progress.epoch + 1}, step {progress.step}", markup=False)
        if progress.finished:
            console.print(
                f"this run is finished after {progress.epoch} epochs; --resume with more --epochs continues it"
            )
    first = accelerator.is_main_process
    with (
        StopSignal() as stop,
        Trackers(folder if first else None, progress.log_bytes if progress.step else 0, progress.step) as trackers,
        ProgressBar("training", settings.total_steps(task.steps_per_epoch), console) as bar,
    ):
        run = Run(
            folder,
            settings,
            accelerator,
            optimizer,
            schedule,
            average,
            progress,
            identity,
            trackers,
            bar,
            stop,
            GradientWatch(optimizer),
        )
        if baseline and progress.step == 0:
            measure_before(task, run, measure_test)
        train(task, run)
        if measure_test:
            test_result(run, measure_test)
    took = {"peak memory": peak_memory_text(accelerator.device)}
    for name, text in took.items():
        console.print(f"{name}: {text}", markup=False)
    return took


def measure_before(task: Task, run: Run, measure_test: MeasureTest | None) -> None:
    """Measure the weights that training starts from. SIGTERM saves them, so that the run can be resumed here."""
    try:
        measure_baseline(task, run)
        if measure_test:
            log_test(run, "before", -1, measure_test, None)
    except Terminated:
        save(task, run, wait=False)
        raise


def test_result(run: Run, measure_test: MeasureTest) -> None:
    """Measure the weights that are kept, read from where users find them, and those of the last epoch."""
    last = run.progress.epoch - 1
    log_test(run, "best", run.progress.best_epoch, measure_test, run.folder / "checkpoints" / "best")
    if run.progress.best_epoch == last:
        return
    with run.average.applied() if run.average else nullcontext():
        log_test(run, "last", last, measure_test, None)


def log_test(run: Run, weights: str, epoch: int, measure_test: MeasureTest, folder: Path | None) -> None:
    """Measure on test data and log it; see `MeasureTest` for `folder`."""
    with run.stop.interrupts(), run.bar.labelled("measuring on test data"):
        metrics = measure_test(folder)
    run.trackers.log("test", run.progress.step, {"weights": weights, "epoch": epoch, **metrics})
    run.trackers.sync()


def print_length(console: Console, settings: LoopSettings, steps_per_epoch: int, warmup_steps: int) -> None:
    """Print how long a run goes on, in epochs and optimiser steps."""
    total = settings.total_steps(steps_per_epoch)
    epochs = -(-total // steps_per_epoch)
    console.print(
        f"length      {epochs} epochs of {steps_per_epoch} steps, {total} steps in all; {warmup_steps} of warm-up",
        markup=False,
    )


def print_places(console: Console, teacher: Path, folder: Path) -> None:
    """Print where the weights and the report of a run are."""
    console.print(f"weights {teacher}", markup=False)
    if (folder / "report.html").exists():
        console.print(f"report  {folder / 'report.html'}", markup=False)
