"""The part of fine-tuning that is the same for every model: a folder, an identity, the run, and what it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from deixis.recipes.digest import weights_digest
from deixis.recipes.files import plain_values
from deixis.recipes.run_folder import RunOptions, prepare_folder, run_folder
from deixis.training.checkpoint import Identity, Progress, load_checkpoint
from deixis.training.ema import WeightAverage
from deixis.training.loop import LoopSettings, Run, Task, measure_baseline, train
from deixis.training.price import measure_recomputation, peak_memory_text
from deixis.training.schedule import Schedule
from deixis.training.signals import StopSignal
from deixis.training.trackers import Display, Trackers


@runtime_checkable
class TrainOptions(Protocol):
    """The options that say what else is measured.

    Attributes:
        baseline: evaluate before the first step of a run that is not resumed.
        gradient_checkpointing: time what it costs.
    """

    @property
    def baseline(self) -> bool: ...
    @property
    def gradient_checkpointing(self) -> bool: ...


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
    options: RunOptions, may_change: set[str], model: nn.Module, training: Any, validation: Any, processes: int
) -> Identity:
    """What a resumed run is compared by.

    Args:
        may_change: options that change neither weights nor metrics.
        training, validation: fingerprints of the data.
    """
    facts = {
        "model_weights": weights_digest(model),
        "training_data": training,
        "validation_data": validation,
        "processes": processes,
    }
    return Identity({name: value for name, value in plain_values(options).items() if name not in may_change}, facts)


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
    options: TrainOptions,
) -> dict[str, str]:
    """Train to the end, from the start or from `checkpoints/last`, and tell what it took.

    Args:
        model: the task's, as it was before `Accelerator.prepare`.

    Returns:
        What the run took, for its report.

    Raises:
        TrainingError, Terminated: see `training.loop.train` and `training.checkpoint.load_checkpoint`.
    """
    progress = Progress()
    if resuming:
        last = folder / "checkpoints" / "last"
        progress = load_checkpoint(last, model, optimizer, average, identity)
        console.print(f"resuming {last} at epoch {progress.epoch + 1}, step {progress.step}", markup=False)
    first = accelerator.is_main_process
    with (
        StopSignal() as stop,
        Trackers(folder if first else None, progress.log_bytes, progress.step) as trackers,
        Display(settings.epochs, settings.total_steps(task.steps_per_epoch), first) as display,
    ):
        run = Run(
            folder, settings, accelerator, optimizer, schedule, average, progress, identity, trackers, display, stop
        )
        if options.baseline and not resuming:
            measure_baseline(task, run)
        price = None
        if options.gradient_checkpointing and not progress.finished:
            price = measure_recomputation(task, accelerator)
        train(task, run)
    took = {"peak memory": peak_memory_text(accelerator.device)}
    if price:
        took["gradient checkpointing"] = str(price)
    for name, text in took.items():
        console.print(f"{name}: {text}", markup=False)
    return took


def print_places(console: Console, teacher: Path, folder: Path) -> None:
    """Print where the weights and the report of a run are."""
    console.print(f"weights {teacher}", markup=False)
    if (folder / "report.html").exists():
        console.print(f"report  {folder / 'report.html'}", markup=False)


def before_and_after(name: str, before: float | None, after: float) -> str:
    """A metric on one line.

    >>> before_and_after("AP", 0.25, 0.5)
    'AP before 0.2500, after 0.5000 (+0.2500)'
    """
    if before is None:
        return f"{name} {after:.4f}"
    return f"{name} before {before:.4f}, after {after:.4f} ({after - before:+.4f})"
