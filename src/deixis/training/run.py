"""What a run is made of: its task, its settings, its state, and how that is saved."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deixis.progress_bar import ProgressBar
from deixis.training import guard
from deixis.training.checkpoint import Identity, Progress, save_checkpoint
from deixis.training.ema import WeightAverage
from deixis.training.metrics.logs import MetricLogs
from deixis.training.optim import Schedule
from deixis.training.sharded_checkpoint import save_sharded
from deixis.training.sharding import ShardedModel
from deixis.training.signals import StopSignal, worker_losses_deferred


@runtime_checkable
class Task(Protocol):
    """What differs between kinds of models: data, losses, evaluation, and how the model is saved."""

    model: nn.Module  # as `Accelerator.prepare` returned it
    steps_per_epoch: int
    shown: tuple[str, ...]  # metrics to print; the first one, the score, decides which weights are best

    def groups(self, epoch: int, start: int) -> Iterator[Sequence[Any]]:
        """The batches of each optimiser step, from step `start` to the end of the epoch."""
        ...

    def normaliser(self, group: Sequence[Any]) -> Tensor:
        """The divisor of a step's losses, counted over its batches and all processes."""
        ...

    def losses(self, batch: Any, normaliser: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted total, and every component by name. For non-finite outputs the total is NaN; it never raises."""
        ...

    def non_finite_samples(self, group: Sequence[Any], normaliser: Tensor) -> list[str]:
        """Names of the samples that give a non-finite loss or gradient by themselves."""
        ...

    def unsupervised_parts(self, group: Sequence[Any]) -> Collection[str]:
        """Parts of the model for which a step's batches have no targets, so that a missing gradient is no error."""
        ...

    def evaluate(self) -> Mapping[str, Any]:
        """Metrics of the current model, including those in `shown` that the data allows; higher is better."""
        ...

    def save_model(self, folder: Path) -> None:
        """Write the current model to a folder from which it can be loaded. Only the first process calls it."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How long a run lasts, and how often it logs, evaluates and saves. An interval of 0 means never."""

    epochs: int
    max_steps: int | None = None
    clip_norm: float = 0.1
    patience: int = 0
    stop_after_epochs: int | None = None
    log_interval: int = 1
    save_interval: int = 0
    evaluate_every: int = 1
    max_skipped: int = 5
    seed: int = 0

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of steps in the whole run."""
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass
class Run:
    """Everything a run needs besides its task."""

    folder: Path
    settings: LoopSettings
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: WeightAverage | None
    progress: Progress
    identity: Identity
    logs: MetricLogs
    bar: ProgressBar
    stop: StopSignal
    watch: guard.GradientWatch
    sharding: ShardedModel[Any] | None = None
    mid_update: bool = False  # true while weights, log and position are not consistent

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around what must change together in a step: weights, log and position. An error leaves `mid_update` true."""
        with worker_losses_deferred():
            self.mid_update = True
            yield
            self.mid_update = False


def save(task: Task, run: Run, wait: bool = True) -> None:
    """Write `checkpoints/last` in the first process; the others wait for it.

    Of a model in shards every process writes its own, which is not possible where others may have ended (`wait`).
    """
    if run.sharding is not None:
        if wait:
            run.progress.log_bytes = run.logs.sync()
            save_sharded(
                run.folder / "checkpoints" / "last",
                run.sharding.model,
                run.optimizer,
                average=run.average,
                progress=run.progress,
                identity=run.identity,
            )
        return
    if run.accelerator.is_main_process:
        run.progress.log_bytes = run.logs.sync()
        model = run.accelerator.unwrap_model(task.model)
        save_checkpoint(
            run.folder / "checkpoints" / "last",
            model,
            run.optimizer,
            average=run.average,
            progress=run.progress,
            identity=run.identity,
        )
    if wait:
        run.accelerator.wait_for_everyone()
