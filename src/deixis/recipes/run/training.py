"""The part of fine-tuning that is the same for every model: start, open, train. Its end is in `report.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from deixis.console import Console
from deixis.options import groups
from deixis.options.old_names import current_values
from deixis.options.yaml_files import plain_values
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.data import RunData
from deixis.recipes.run.devices import known_peak
from deixis.recipes.run.ending import ChangeBest, MeasureTest, log_kept, measure_before, test_result
from deixis.recipes.run.folder import keep_config, prepare_folder, will_resume
from deixis.recipes.run.outputs import weights_digest
from deixis.recipes.run.plan import counted
from deixis.reporting.metrics_file import read_records, speed_facts
from deixis.training.checkpoint import Identity, Progress, load_checkpoint
from deixis.training.ema import WeightAverage
from deixis.training.guard import GradientWatch
from deixis.training.loop import train
from deixis.training.metrics.logs import MetricLogs
from deixis.training.optim import Schedule, build_adamw, parameter_groups
from deixis.training.processes import broadcast_from_first, make_accelerator, peak_memory_text
from deixis.training.run import LoopSettings, Run, Task
from deixis.training.sharded_checkpoint import load_sharded
from deixis.training.sharding import ShardedModel
from deixis.training.signals import StopSignal

# Options that may differ between a run and its resumption: they change neither weights nor metrics. The data is
# compared by its content.
MAY_CHANGE = {
    *("output", "experiment_name", "resume", "auto_resume", "overwrite", "dry_run", "seeds"),
    *("report", "report_images", "show_augmented", "compare_with"),
    *("data", "images", "format", "val_data", "val_images", "test_data", "test_images", "max_unreadable_images"),
    *("num_workers", "gpus", "save_interval", "log_interval", "eval_batch_size", "val_loss_images", "max_skipped"),
    *("forgetting_data", "forgetting_images", "forgetting_sweep", "forgetting_max_images"),
    *("refcoco_dir", "sa1b_dir", "openimages_dir", "sav_dir"),
    *("cache_features", "cache_gib", "teacher_layout", "log_with", "price_per_hour", "peak_tflops"),
}


@dataclass(frozen=True)
class Job:
    """What is trained, and how.

    Attributes:
        model: the task's, as it was before `Accelerator.prepare`.
        part_of: the part of the model that a parameter belongs to, by its name.
        rates: learning rate of each part.
        baseline: evaluate before the first step of a run that is not resumed.
        change_best: of a run that keeps other weights than the best epoch's; None where it keeps those.
        late_parts: parts that train only after a share of the run, and that share.
        sharding: of a model that is divided among the processes.
    """

    task: Task
    model: nn.Module
    part_of: Callable[[str], str]
    rates: Mapping[str, float]
    optimiser: groups.Optimiser
    settings: LoopSettings
    baseline: bool
    change_best: ChangeBest | None = None
    late_parts: Mapping[str, float] = field(default_factory=dict)
    sharding: ShardedModel[Any] | None = None

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.settings.total_steps(self.task.steps_per_epoch)

    def adamw(self) -> torch.optim.AdamW:
        """An optimiser of the model."""
        decay = self.optimiser.weight_decay
        found = parameter_groups(self.model.named_parameters(), self.part_of, self.rates, weight_decay=decay)
        for group in found:
            part = group["name"].split("/")[0]
            if part in self.late_parts:
                group["first_update"] = round(self.late_parts[part] * self.total_steps)
        return build_adamw(found)


@dataclass(frozen=True)
class Start:
    """What a run has before its folder.

    Attributes:
        resuming: from `checkpoints/last`.
        started: on the clock of `time.perf_counter`.
    """

    accelerator: Accelerator
    console: Console
    resuming: bool
    started: float

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return bool(self.accelerator.is_main_process)


@dataclass(frozen=True)
class OpenRun(Start):
    """A run whose folder is made.

    Attributes:
        config: the resolved options as plain values.
        identity: what a resumed run is compared by.
        log_services: where metrics go besides metrics.jsonl.
        pictures: drawn in the report by this process.
        training_images: number of them.
    """

    folder: Path
    config: Mapping[str, Any]
    identity: Identity
    log_services: Sequence[str]
    pictures: int
    training_images: int = 0


def start_run(run: groups.Run, hardware: groups.Hardware) -> Start:
    """Choose the device, connect the processes, see whether the run resumes. Changes no file.

    Raises:
        DeixisError: the folder or the device cannot be used.
    """
    started = time.perf_counter()
    accelerator = make_accelerator(hardware.precision, cpu=hardware.gpus == 0)
    console = Console(quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
    return Start(accelerator, console, will_resume(run), started)


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
    start: Start,
    options: groups.Run,
    model: nn.Module,
    *,
    data: RunData[Any],
    fingerprint: Callable[[Any], str],
    samples_per_step: int | None = None,
) -> OpenRun:
    """Make the folder of a run, or empty it, in the first process while the others wait.

    Args:
        options: all of them, resolved.
        model: as it is before training.
        fingerprint: a data set to a text that is the same for the same content.
        samples_per_step: of all processes, where the run may resume with another number of them.

    Raises:
        TrainingError: the folder cannot be written.
    """
    config, accelerator = plain_values(options), start.accelerator
    accelerator.wait_for_everyone()  # others may still be reading the folder, which is moved aside next
    if start.is_first:
        prepare_folder(options, config, start.resuming)
    accelerator.wait_for_everyone()
    facts = {
        # in one process: it reads every weight, which the others of a model in shards never do
        "model_weights": broadcast_from_first(accelerator, weights_digest(model) if start.is_first else ""),
        "training_data": fingerprint(data.training),
        "validation_data": fingerprint(data.validation),
        "processes": accelerator.num_processes,
    }
    may_change = MAY_CHANGE
    # A model in shards may resume in another number of processes, if a step has as many samples.
    if samples_per_step is not None:
        del facts["processes"]
        facts["samples_per_step"] = samples_per_step
        may_change = MAY_CHANGE | {"batch_size", "gradient_accumulation_steps"}
    if data.test is not None:
        facts["test_data"] = fingerprint(data.test)
    # Defaults too: options that are newer than a checkpoint are taken to have been at theirs.
    given, defaults = (
        {name: value for name, value in values.items() if name not in may_change}
        for values in (config, plain_values(type(options)()))
    )
    identity = Identity(given, facts, defaults, partial(current_values, type(options)))
    pictures = options.report_images if options.report and start.is_first else 0
    return OpenRun(
        **vars(start),
        folder=options.folder,
        config=config,
        identity=identity,
        log_services=options.log_services,
        pictures=pictures,
        training_images=len(data.training),
    )


def train_run(opened: OpenRun, job: Job, measure_test: MeasureTest | None = None) -> dict[str, str]:
    """Train to the end, from the start or from `checkpoints/last`, and report what it took.

    Args:
        measure_test: metrics on test data, which are logged before training, of the best weights and of the last.

    Returns:
        What the run took, for its report.

    Raises:
        TrainingError, Terminated: see `training.loop.train` and `training.checkpoint.load_checkpoint`.
    """
    optimiser, total_steps, optimizer = job.optimiser, job.total_steps, job.adamw()
    average = WeightAverage(job.model, optimiser.ema_decay) if optimiser.ema_decay else None
    progress = restored(opened, job, optimizer, average) if opened.resuming else Progress()
    # before the first step the baseline is measured again
    resume_at = (progress.log_bytes if progress.step else 0, progress.step) if opened.resuming else None
    log_folder = opened.folder if opened.is_first else None
    with (
        StopSignal() as stop,
        MetricLogs(log_folder, resume_at, opened.log_services, options=opened.config) as logs,
        ProgressBar("training", total_steps, opened.console) as bar,
    ):
        run = Run(
            opened.folder,
            job.settings,
            opened.accelerator,
            optimizer,
            Schedule(optimiser.schedule, total_steps, optimiser.warmup(total_steps), optimiser.lr_drop_at),
            average,
            progress,
            opened.identity,
            logs,
            bar,
            stop,
            GradientWatch(optimizer),
            job.sharding,
        )
        if job.baseline and progress.step == 0:
            measure_before(job.task, run, measure_test)
        train(job.task, run)
        if job.change_best:
            log_kept(run, job.change_best)
        if measure_test:
            test_result(run, measure_test)
    took = took_facts(opened)
    for name, text in took.items():
        opened.console.print(f"{name}: {text}", markup=False)
    return took


def took_facts(opened: OpenRun) -> dict[str, str]:
    """What a run took, for people; in the first process, which has the log, also how fast it was."""
    device, config = opened.accelerator.device, opened.config
    took = {"peak memory": peak_memory_text(device)}
    if opened.is_first:
        took |= speed_facts(
            read_records(opened.folder / "metrics.jsonl"),
            opened.accelerator.num_processes,
            config.get("price_per_hour") or 0.0,
            peak_tflops=config.get("peak_tflops") or known_peak(device, config["precision"]),
            recomputes=config["gradient_checkpointing"],
        )
    return took


def restored(opened: OpenRun, job: Job, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> Progress:
    """Load `checkpoints/last` into model, optimiser and average; how far the run had come."""
    last = opened.folder / "checkpoints" / "last"
    load = load_checkpoint if job.sharding is None else load_sharded
    progress = load(last, job.model, optimizer, average=average, identity=opened.identity)
    if opened.is_first:  # a longer run, or one with other workers, is resumed as it is now
        keep_config(opened.config, opened.folder)
    opened.console.print(f"resuming {last} at epoch {progress.epoch + 1}, step {progress.step}", markup=False)
    if progress.finished:
        opened.console.print(
            f"this run is finished after {counted(progress.epoch, 'epoch')}; --resume with more --epochs continues it"
        )
    return progress
