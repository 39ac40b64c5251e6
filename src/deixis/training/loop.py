"""The training loop: fetch, forward, loss, backward, step, log, evaluate, save.

It knows nothing of detectors: a `Task` brings batches, losses and evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deixis.errors import Terminated, TrainingError
from deixis.progress_bar import ProgressBar
from deixis.training import guard
from deixis.training.checkpoint import Identity, Progress, save_checkpoint, save_progress
from deixis.training.ema import WeightAverage
from deixis.training.metric_logs import Trackers
from deixis.training.optim import set_learning_rate
from deixis.training.processes import gather_lists, mean_figures, peak_memory_mb, seed_step
from deixis.training.schedule import Schedule
from deixis.training.signals import StopSignal


@runtime_checkable
class Task(Protocol):
    """What a run trains on: the part that differs between kinds of model."""

    model: nn.Module  # as `Accelerator.prepare` returned it
    steps_per_epoch: int
    shown: tuple[str, ...]  # metrics to print; the first is the score that decides which weights are best

    def groups(self, epoch: int, start: int) -> Iterator[Sequence[Any]]:
        """From the step at `start` to the end of the epoch: the batches of each optimiser step."""
        ...

    def normaliser(self, group: Sequence[Any]) -> Tensor:
        """What the losses of a step are divided by, counted over its batches and all processes."""
        ...

    def losses(self, batch: Any, normaliser: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted total, and every component by name. Never raises for NaN: the total is NaN then."""
        ...

    def suspects(self, group: Sequence[Any], normaliser: Tensor) -> list[str]:
        """Names of the samples that give a non-finite loss or gradient by themselves."""
        ...

    def untaught(self, group: Sequence[Any]) -> Collection[str]:
        """Parts of the model that the batches of a step teach nothing by right, so that no gradient is no fault."""
        ...

    def evaluate(self) -> Mapping[str, Any]:
        """Metrics of the model as it is, those in `shown` among them; higher is better."""
        ...

    def save_model(self, folder: Path) -> None:
        """Write the model as it is to a folder that loads elsewhere. The first process calls it."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How long a run goes on, and how often it speaks and saves. Intervals of 0 are never."""

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
        """Steps of the whole run."""
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass
class Run:
    """Everything of a run but its task."""

    folder: Path
    settings: LoopSettings
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: WeightAverage | None
    progress: Progress
    identity: Identity
    trackers: Trackers
    bar: ProgressBar
    stop: StopSignal
    watch: guard.GradientWatch
    mid_update: bool = False  # weights, log and position do not belong together just now

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around what changes together in a step: weights, log and position. An error inside leaves the mark."""
        self.mid_update = True
        yield
        self.mid_update = False


def train(task: Task, run: Run) -> Progress:
    """Train to the end, from wherever `run.progress` stands.

    Raises:
        TrainingError: see `guard.require_hope`; a trainable part gets no gradient; a checkpoint cannot be written;
            SIGTERM ended the loading workers in the middle of an update.
        Terminated: SIGTERM came; `checkpoints/last` has been saved.
    """
    last_step = run.settings.total_steps(task.steps_per_epoch)
    try:
        while not run.progress.finished:
            train_epoch(task, run, last_step)
            finish_epoch(task, run, last_step)
    except RuntimeError as error:
        # SIGTERM to a whole process group also ends the loading workers, which torch reports as a RuntimeError.
        if not run.stop.requested:
            if not run.mid_update and _is_lost_worker(error):
                raise _without_worker(task, run, error) from error
            raise
        if run.mid_update:
            raise TrainingError(
                f"step {run.progress.step}: SIGTERM came while the weights were changing ({error}); they are not "
                "saved, the last checkpoint is untouched: go on from it with --resume"
            ) from error
        save(task, run, wait=False)
        raise Terminated from None
    return run.progress


def _is_lost_worker(error: RuntimeError) -> bool:
    return "DataLoader worker" in str(error)


def _without_worker(task: Task, run: Run, error: RuntimeError) -> TrainingError:
    """What to say when a loading worker was killed between two steps; the run is saved first."""
    save(task, run, wait=False)
    reason = " ".join(str(error).split())
    return TrainingError(
        f"step {run.progress.step}: a data loading worker died, often because memory ran out ({reason}); "
        "checkpoints/last is saved: give --resume, with fewer --workers or a smaller --batch-size"
    )


def train_epoch(task: Task, run: Run, last_step: int) -> None:
    """The rest of an epoch.

    A step is: its batches summed into one gradient, the gradient clipped, all figures fetched from the device at once,
    and the weights changed if all of them are finite.
    """
    progress, settings, accelerator = run.progress, run.settings, run.accelerator
    task.model.train()
    if progress.step >= last_step:
        return
    started = time.perf_counter()
    for group in task.groups(progress.epoch, progress.step_in_epoch):
        seed_step(settings.seed, progress.step, accelerator.process_index)
        rates = set_learning_rate(run.optimizer, run.schedule.factor(progress.updates))
        normaliser = task.normaliser(group)
        losses = accumulate_gradients(task, accelerator, group, normaliser)
        if progress.updates == 0:
            require_gradients(accelerator.unwrap_model(task.model))
        norm = accelerator.clip_grad_norm_(task.model.parameters(), settings.clip_norm)
        assert norm is not None
        asked = norm.new_tensor(float(run.stop.requested))
        figures = mean_figures(accelerator, {**losses, "grad_norm": norm, "stop": asked})
        stop = figures.pop("stop") > 0

        sound = guard.is_finite(figures)
        if sound:
            run.watch.look(task.untaught(group))
        with run.updating():
            if sound:
                run.optimizer.step()
                if run.average:
                    run.average.update()
            if not sound:
                name_and_log_skip(task, run, group, normaliser, figures)
            elif progress.step % settings.log_interval == 0:
                run.trackers.log("step", progress.step, step_record(run, figures, rates, group, started))
            progress.count_step(updated=sound)
        run.optimizer.zero_grad(set_to_none=True)
        started = time.perf_counter()

        run.bar(progress.step, note=f"epoch {progress.epoch + 1}/{settings.epochs}  loss {figures['loss']:.3f}")
        due = settings.save_interval > 0 and progress.step % settings.save_interval == 0
        if stop or due:
            save(task, run)
        if stop:
            raise Terminated
        if progress.step >= last_step:
            return


def accumulate_gradients(
    task: Task, accelerator: Accelerator, group: Sequence[Any], normaliser: Tensor
) -> dict[str, Tensor]:
    """Forward, loss and backward of each batch of a step; the summed losses, detached.

    Every batch is divided by the normaliser of the whole step, so that the sum of the gradients is that of one large
    batch: no division by the number of batches. Processes exchange gradients with the last batch only.
    """
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(group):
        if index + 1 < len(group):
            with accelerator.no_sync(task.model):
                total, losses = task.losses(batch, normaliser)
                accelerator.backward(total)
        else:
            total, losses = task.losses(batch, normaliser)
            accelerator.backward(total)
        for name, value in {"loss": total, **losses}.items():
            share = value.detach() if name.startswith("loss") else value.detach() / len(group)
            sums[name] = sums[name] + share if name in sums else share
    return sums


def name_and_log_skip(
    task: Task, run: Run, group: Sequence[Any], normaliser: Tensor, figures: Mapping[str, float]
) -> None:
    """Log a bad step with the samples to blame; stop the run where skipping cannot help. Nothing else changes."""
    progress = run.progress
    run.optimizer.zero_grad(set_to_none=True)
    suspects = gather_lists(run.accelerator, task.suspects(group, normaliser))
    culprits = guard.culprits(figures)
    record = {"epoch": progress.epoch, "non_finite": culprits, "samples": suspects, "skipped": progress.skipped + 1}
    run.trackers.log("skip", progress.step, record)
    run.trackers.sync()
    run.bar.console.print(
        f"step {progress.step} skipped: non-finite {', '.join(culprits)}; samples: {', '.join(suspects)}"
    )
    model = run.accelerator.unwrap_model(task.model)
    guard.require_hope(model, progress, run.settings.max_skipped, figures, suspects)


def finish_epoch(task: Task, run: Run, last_step: int) -> None:
    """Save, evaluate, keep the best, decide whether to go on.

    The weights are saved before the evaluation: a run that dies in it has lost no epoch.
    """
    progress, settings = run.progress, run.settings
    at_end = progress.step >= last_step or progress.epoch + 1 == settings.stop_after_epochs
    if at_end:
        run.watch.finish()
    save(task, run)
    if at_end or (progress.epoch + 1) % settings.evaluate_every == 0:
        started = time.perf_counter()
        metrics, better = evaluate_and_keep(task, run)
        seconds = time.perf_counter() - started
        record = {"epoch": progress.epoch, "best": better, **metrics, "seconds": seconds}
        run.trackers.log("evaluation", progress.step, record)
        run.bar.console.print(
            f"epoch {progress.epoch + 1}/{settings.epochs}  step {progress.step}  "
            f"{shown_metrics(task, metrics)}{'  best so far' if better else ''}"
        )
    patient = settings.patience == 0 or progress.epochs_without_gain < settings.patience
    progress.finished = at_end or not patient
    progress.epoch += 1
    progress.step_in_epoch = 0
    if run.accelerator.is_main_process:
        progress.log_bytes = run.trackers.sync()
        save_progress(run.folder / "checkpoints" / "last", progress, run.identity)
    run.accelerator.wait_for_everyone()


def evaluate_and_keep(task: Task, run: Run) -> tuple[Mapping[str, Any], bool]:
    """Metrics of the weights to be kept (the averaged ones, if there are any), and whether they are the best so far.

    The best go to `checkpoints/best`. SIGTERM during the evaluation raises `Terminated` with nothing changed.
    """
    progress = run.progress
    with run.average.applied() if run.average else nullcontext():
        task.model.eval()
        with run.stop.interrupts(), run.bar.labelled("evaluating"):
            metrics = task.evaluate()
        score = float(metrics[task.shown[0]])
        better = score > progress.best_score
        if better and run.accelerator.is_main_process:
            task.save_model(run.folder / "checkpoints" / "best")
    progress.epochs_without_gain = 0 if better else progress.epochs_without_gain + 1
    if better:
        progress.best_score, progress.best_epoch = score, progress.epoch
    return metrics, better


def shown_metrics(task: Task, metrics: Mapping[str, Any]) -> str:
    """The metrics to print, on one line."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in task.shown)


def measure_baseline(task: Task, run: Run) -> None:
    """Evaluate the weights that training starts from."""
    task.model.eval()
    with run.stop.interrupts(), run.bar.labelled("measuring before training"):
        metrics = task.evaluate()
    run.trackers.log("baseline", 0, {"epoch": 0, **metrics})
    run.trackers.sync()
    run.bar.console.print(f"before training  {shown_metrics(task, metrics)}")


def step_record(
    run: Run, figures: Mapping[str, float], rates: Mapping[str, float], group: Sequence[Any], started: float
) -> dict[str, Any]:
    """What is logged of a step: every loss by name, and how the step went."""
    images = sum(len(batch) for batch in group) * run.accelerator.num_processes
    return {
        "epoch": run.progress.epoch,
        **figures,
        "lr": rates,
        "skipped": run.progress.skipped,
        "images_per_second": round(images / max(time.perf_counter() - started, 1e-9), 3),
        "peak_memory_mb": round(peak_memory_mb(run.accelerator.device)),
    }


def save(task: Task, run: Run, wait: bool = True) -> None:
    """Write `checkpoints/last`; the first process does, the others wait for it."""
    if run.accelerator.is_main_process:
        run.progress.log_bytes = run.trackers.sync()
        model = run.accelerator.unwrap_model(task.model)
        save_checkpoint(
            run.folder / "checkpoints" / "last", model, run.optimizer, run.average, run.progress, run.identity
        )
    if wait:
        run.accelerator.wait_for_everyone()


def require_gradients(model: nn.Module) -> None:
    """Raises TrainingError when a parameter that should train receives no gradient."""
    missed = guard.parameters_without_gradient(model)
    if missed:
        raise TrainingError(
            f"{len(missed)} trainable parameters receive no gradient, the first is {missed[0]}; freeze them"
        )
