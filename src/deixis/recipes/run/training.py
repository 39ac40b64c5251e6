"""The part of fine-tuning that is the same for every model: open, train, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from deixis.console import Console
from deixis.errors import Terminated
from deixis.options import groups
from deixis.options.old_names import current_values
from deixis.options.yaml_files import plain_values
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.data import RunData
from deixis.recipes.run.digest import weights_digest
from deixis.recipes.run.folder import keep_config, prepare_folder
from deixis.recipes.run.plan import counted
from deixis.recipes.run.result import keep_result
from deixis.reporting.metrics_file import read_outcome
from deixis.reporting.outcome import Outcome
from deixis.training.checkpoint import Identity, Progress, load_checkpoint
from deixis.training.ema import WeightAverage
from deixis.training.guard import GradientWatch
from deixis.training.loop import LoopSettings, Run, Task, measure_baseline, save, train
from deixis.training.metric_logs import MetricLogs
from deixis.training.optim import build_adamw, parameter_groups
from deixis.training.processes import broadcast_from_first, peak_memory_text
from deixis.training.schedule import Schedule
from deixis.training.signals import StopSignal

MeasureTest = Callable[[Path | None], Mapping[str, Any]]
"""Metrics on test data of the model in a folder, or of the run's own as it is."""


# Options that may differ between a run and its resumption: they change neither weights nor metrics. The data is
# compared by its content.
MAY_CHANGE = {
    *("output", "experiment_name", "resume", "auto_resume", "overwrite", "dry_run", "seeds", "report", "report_images"),
    *("data", "images", "format", "val_data", "val_images", "test_data", "test_images", "max_unreadable_images"),
    *("num_workers", "gpus", "save_interval", "log_interval", "eval_batch_size", "val_loss_images", "max_skipped"),
    *("forgetting_data", "forgetting_images", "forgetting_sweep", "forgetting_max_images"),
    *("refcoco_dir", "sa1b_dir", "openimages_dir", "sav_dir"),
    *("cache_features", "cache_gib", "teacher_layout", "log_with"),
}


@dataclass(frozen=True)
class OpenRun:
    """A run whose folder is made.

    Attributes:
        config: the resolved options as plain values.
        log_services: where metrics go besides metrics.jsonl.
        settings: of the loop.
        identity: what a resumed run is compared by.
        resuming: from `checkpoints/last`.
        started: on the clock of `time.perf_counter`.
    """

    folder: Path
    config: Mapping[str, Any]
    log_services: Sequence[str]
    settings: LoopSettings
    identity: Identity
    accelerator: Accelerator
    console: Console
    resuming: bool
    started: float


def loop_settings(loop: groups.Loop, clip_norm: float, seed: int) -> LoopSettings:
    """The settings of the loop, from resolved options."""
    assert loop.epochs is not None
    return LoopSettings(
        epochs=loop.epochs,
        max_steps=loop.max_steps,
        clip_norm=clip_norm,
        patience=loop.early_stopping_patience,
        stop_after_epochs=loop.stop_after_epochs,
        log_interval=loop.log_interval,
        save_interval=loop.save_interval,
        evaluate_every=loop.evaluate_every,
        max_skipped=loop.max_skipped,
        seed=seed,
    )


def open_run(
    options: groups.Run,
    settings: LoopSettings,
    accelerator: Accelerator,
    console: Console,
    *,
    resuming: bool,
    model: nn.Module,
    data: RunData[Any],
    fingerprint: Callable[[Any], str],
    started: float,
) -> OpenRun:
    """Make the folder of a run, or empty it, in the first process while the others wait.

    Args:
        options: all of them, resolved.
        model: as it is before training.
        fingerprint: a data set to a text that is the same for the same content.

    Raises:
        TrainingError: the folder cannot be written.
    """
    config = plain_values(options)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        prepare_folder(options, config, resuming)
    accelerator.wait_for_everyone()
    facts = {
        "model_weights": weights_digest(model),
        "training_data": fingerprint(data.training),
        "validation_data": fingerprint(data.validation),
        "processes": accelerator.num_processes,
    }
    if data.test is not None:
        facts["test_data"] = fingerprint(data.test)
    given, defaults = (
        {name: value for name, value in values.items() if name not in MAY_CHANGE}
        for values in (config, plain_values(type(options)()))
    )
    identity = Identity(given, facts, defaults, partial(current_values, type(options)))
    return OpenRun(
        options.folder, config, options.log_services, settings, identity, accelerator, console, resuming, started
    )


def train_run(
    opened: OpenRun,
    task: Task,
    model: nn.Module,
    optimiser: groups.Optimiser,
    *,
    learning_rates: Mapping[str, float],
    part_of: Callable[[str], str],
    baseline: bool,
    measure_test: MeasureTest | None = None,
) -> dict[str, str]:
    """Train to the end, from the start or from `checkpoints/last`, and report what it took.

    Args:
        model: the task's, as it was before `Accelerator.prepare`.
        learning_rates: of each part of the model.
        part_of: the part that a parameter belongs to, by its name.
        baseline: evaluate before the first step of a run that is not resumed.
        measure_test: metrics on test data, which are logged before training, of the best weights and of the last.

    Returns:
        What the run took, for its report.

    Raises:
        TrainingError, Terminated: see `training.loop.train` and `training.checkpoint.load_checkpoint`.
    """
    folder, accelerator, console = opened.folder, opened.accelerator, opened.console
    total_steps = opened.settings.total_steps(task.steps_per_epoch)
    optimizer = build_adamw(
        parameter_groups(model.named_parameters(), part_of, learning_rates, weight_decay=optimiser.weight_decay)
    )
    average = WeightAverage(model, optimiser.ema_decay) if optimiser.ema_decay else None
    progress = Progress()
    if opened.resuming:
        last = folder / "checkpoints" / "last"
        progress = load_checkpoint(last, model, optimizer, average=average, identity=opened.identity)
        if accelerator.is_main_process:  # a longer run, or one with other workers, is resumed as it is now
            keep_config(opened.config, folder)
        console.print(f"resuming {last} at epoch {progress.epoch + 1}, step {progress.step}", markup=False)
        if progress.finished:
            console.print(
                f"this run is finished after {counted(progress.epoch, 'epoch')}; "
                "--resume with more --epochs continues it"
            )
    first = accelerator.is_main_process
    resume_at = (progress.log_bytes if progress.step else 0, progress.step) if opened.resuming else None
    with (
        StopSignal() as stop,
        MetricLogs(folder if first else None, resume_at, opened.log_services, options=opened.config) as logs,
        ProgressBar("training", total_steps, console) as bar,
    ):
        run = Run(
            folder,
            opened.settings,
            accelerator,
            optimizer,
            Schedule(optimiser.schedule, total_steps, optimiser.warmup(total_steps), optimiser.lr_drop_at),
            average,
            progress,
            opened.identity,
            logs,
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


def finish_run(
    opened: OpenRun,
    teacher: Path,
    shown: Sequence[str],
    *,
    write: Callable[[Outcome, float], None],
    lines: Callable[[Outcome], Sequence[str]] = lambda _: (),
) -> Outcome:
    """Write the best weights and the report of a run that is trained, and print what it came to.

    Args:
        teacher: the folder of the best weights.
        shown: metrics to print; the first is the score that chose the best weights.
        write: writes `teacher` and the report, given the seconds from start to end; the first process calls it.
        lines: more to print.
    """
    accelerator, console = opened.accelerator, opened.console
    first = accelerator.is_main_process
    outcome = broadcast_from_first(
        accelerator, read_outcome(opened.folder / "metrics.jsonl", shown[0]) if first else None
    )
    assert outcome is not None
    if first:
        write(outcome, time.perf_counter() - opened.started)
        keep_result(opened.folder, teacher, outcome)
    for line in (*outcome.lines(shown), *lines(outcome), f"weights {teacher}"):
        console.print(line, markup=False)
    if (opened.folder / "report.html").exists():
        console.print(f"report  {opened.folder / 'report.html'}", markup=False)
    accelerator.wait_for_everyone()
    return outcome


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
    run.logs.log("test", run.progress.step, {"weights": weights, "epoch": epoch, **metrics})
    run.logs.sync()
