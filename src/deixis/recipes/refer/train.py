"""Fine-tune a segmenter, from data to report, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from deixis.console import Console
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.freezing import training_lines
from deixis.models.sa2va import Sa2vaBundle, parameter_table, part_of
from deixis.models.sa2va.parts import PARTS
from deixis.options.checks import A_SEGMENTER
from deixis.options.groups import Loop, Lora, Optimiser
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_train import (
    Conversations,
    PublicData,
    ReferData,
    ReferHardware,
    ReferLoss,
    ReferParts,
    ReferRun,
    ReferTrainOptions,
)
from deixis.recipes.model.choice import knowing
from deixis.recipes.refer.cycle import read_masks
from deixis.recipes.refer.data import QUICK_IMAGES, QUICK_STEPS, facts, fingerprint, training_feed
from deixis.recipes.refer.dry_run import read_everything
from deixis.recipes.refer.features import frozen_features
from deixis.recipes.refer.generated import caption_folders, captions_wanted
from deixis.recipes.refer.measure import CAPTION_METRICS, SegmenterMeasure
from deixis.recipes.refer.model import language_parameters, make_refer_criterion, prepare_segmenter, save_segmenter
from deixis.recipes.refer.presence import last_threshold, threshold_line
from deixis.recipes.refer.report import refer_pictures, write_segmenter_report
from deixis.recipes.refer.sources import read_refer_data
from deixis.recipes.run.data import RunData
from deixis.recipes.run.folder import will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.plan import print_length, print_parts
from deixis.recipes.run.result import require_one_seed
from deixis.recipes.run.training import finish_run, loop_settings, open_run, train_run
from deixis.recipes.run.validation_losses import refer_validation_losses
from deixis.refer_records import ReferDataset
from deixis.reporting.outcome import Outcome
from deixis.training.processes import is_first_process, make_accelerator
from deixis.training.segmenter_task import SegmenterTask


@dataclass(frozen=True)
class SegmenterResult:
    """What a run came to.

    Attributes:
        folder: of the run.
        teacher: the best weights, to be loaded elsewhere; None after a dry run.
        before: metrics on test data, or on validation data where there is none, by name; None where they were not
            measured.
        after: the same of the best weights.
        outcome: all that was measured, of the best and of the last epoch, on validation and on test data.
    """

    folder: Path
    teacher: Path | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    outcome: Outcome | None = None


def finetune_segmenter(options: ReferTrainOptions) -> SegmenterResult:
    """Measure, fine-tune, measure again, report.

    Raises:
        DeixisError: options, data, model or folder cannot be used; or the run cannot continue.
        Terminated: SIGTERM came and the run was saved.
    """
    options.check()
    require_one_seed(options.seeds)
    with run_lock(options.folder, is_first_process() and not options.dry_run):
        return _finetune_segmenter(options)


def _finetune_segmenter(options: ReferTrainOptions) -> SegmenterResult:
    started = time.perf_counter()
    if options.quick:
        most_steps = min(QUICK_STEPS, options.max_steps or QUICK_STEPS)
        most_images = min(QUICK_IMAGES, options.max_val_images or QUICK_IMAGES)
        options = replace(options, max_steps=most_steps, max_val_images=most_images)
    accelerator = make_accelerator(options.precision, cpu=options.gpus == 0)
    console = Console(quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
    resuming = will_resume(options.group(ReferRun))
    caption_folders(wanted_captions(options), accelerator)
    data = read_data(options)

    parts, lora, loss = options.group(ReferParts), options.group(Lora), options.group(ReferLoss)
    loop, optimiser, conversations = options.group(Loop), options.group(Optimiser), options.group(Conversations)
    bundle = prepare_segmenter(
        parts, lora, options.behaviour, seed=options.seed, gradient_checkpointing=options.gradient_checkpointing
    )
    folders = (options.refcoco_dir, options.sa1b_dir, options.openimages_dir, options.sav_dir)
    bundle = knowing(bundle, options.model, A_SEGMENTER, options.data, *folders)
    feed = training_feed(
        data.training,
        bundle,
        conversations,
        loop,
        seed=options.seed,
        workers=options.num_workers,
        max_unreadable=options.max_unreadable_images,
    )
    adapters = f", LoRA r {options.lora_r} alpha {options.lora_alpha:g}" if options.lora else ""
    print_plan(console, f"{options.model}, behaviour {options.behaviour}{adapters}", bundle, data)
    settings = loop_settings(loop, options.clip_norm, options.seed)
    steps_per_epoch = feed.steps_per_epoch(accelerator.num_processes)
    print_length(console, settings, steps_per_epoch, optimiser)
    bundle.model.to(accelerator.device)
    features = frozen_features(
        options.group(ReferHardware),
        bundle,
        data.training,
        max_tiles=options.max_tiles,
        accelerator=accelerator,
        console=console,
    )
    criterion = make_refer_criterion(loss)
    if options.dry_run:
        if accelerator.is_main_process:
            read_everything(feed, data, options.max_val_images)
        return SegmenterResult(options.folder, None, None, None)

    opened = open_run(
        options,
        settings,
        accelerator,
        console,
        resuming=resuming,
        model=bundle.model,
        data=data,
        fingerprint=fingerprint,
        started=started,
    )
    folder, teacher = opened.folder, opened.folder / "teachers" / "sa2va"
    segmenter = Segmenter(bundle, accelerator.device, options.max_tiles)
    if resuming:
        segmenter.threshold = last_threshold(folder / "metrics.jsonl", segmenter.threshold)
    drawn = options.report_images if options.report and accelerator.is_main_process else 0
    pictures = refer_pictures(segmenter, data.reported, drawn, loop.eval_batch_size or 4)
    measure = SegmenterMeasure(
        accelerator,
        loop.eval_batch_size or 4 * loop.batch_size,
        max_images=options.max_val_images,
        max_tiles=options.max_tiles,
        captions=options.caption_share > 0,
    )
    losses = refer_validation_losses(
        bundle,
        criterion,
        data.validation,
        accelerator,
        conversations,
        images=loop.val_loss_images,
        batch_size=loop.batch_size,
        max_val_images=options.max_val_images,
    )
    task = SegmenterTask(
        accelerator.prepare_model(bundle.model),
        bundle.normalise_tiles,
        bundle.normalise_sam,
        criterion=criterion,
        feed=feed,
        accelerator=accelerator,
        language=language_parameters(bundle.model),
        evaluate=lambda: measure(segmenter, data.validation, fit=True) | losses(),
        save_model=lambda path: save_segmenter(bundle.with_presence_threshold(segmenter.threshold), path),
        features=features,
    )
    rates = dict.fromkeys(PARTS, options.learning_rate)
    took = train_run(
        opened,
        task,
        bundle.model,
        optimiser,
        learning_rates=rates,
        part_of=part_of,
        baseline=options.baseline,
        measure_test=None if data.test is None else partial(measure.of_folder, segmenter=segmenter, dataset=data.test),
    )

    def write(outcome: Outcome, seconds: float) -> None:
        write_segmenter_report(
            opened,
            bundle,
            data,
            pictures,
            parts=parts,
            max_tiles=options.max_tiles,
            teacher=teacher,
            outcome=outcome,
            seconds=seconds,
            took=took,
            batch_size=loop.eval_batch_size or 4,
            page=options.report,
        )

    def threshold_lines(outcome: Outcome) -> list[str]:
        best = outcome.best.validation
        released = options.behaviour == "sa2va"
        return [] if released else [threshold_line(best, best.get("presence_threshold", segmenter.threshold))]

    outcome = finish_run(opened, teacher, ("gIoU", "cIoU", *CAPTION_METRICS), write=write, lines=threshold_lines)
    before, after = outcome.reported(outcome.before), outcome.reported(outcome.best)
    return SegmenterResult(folder, teacher, before, after, outcome)


def check_inputs(options: ReferTrainOptions) -> None:
    """Find the likely errors before several processes are started, which would each report them.

    Raises:
        DeixisError: options, data or folder cannot be used.
    """
    options.check()
    if options.seeds == 1:
        will_resume(options.group(ReferRun))
    make_refer_criterion(options.group(ReferLoss))
    for wanted in wanted_captions(options):
        read_masks(wanted)  # the processes describe them, each its share
    if options.placeholder_captions or not (options.sa1b_dir or options.sav_dir):
        read_data(options)


def read_data(options: ReferTrainOptions) -> RunData[ReferDataset]:
    """See `read_refer_data`."""
    groups = options.group(ReferData), options.group(PublicData)
    return read_refer_data(*groups, folder=options.folder, seed=options.seed)


def wanted_captions(options: ReferTrainOptions) -> list[ReferCycleOptions]:
    """See `captions_wanted`."""
    return captions_wanted(
        options.group(PublicData),
        options.group(ReferParts),
        folder=options.folder,
        max_tiles=options.max_tiles,
        dry_run=options.dry_run,
        on_cpu=options.gpus == 0,
    )


def print_plan(console: Console, title: str, bundle: Sa2vaBundle, data: RunData[ReferDataset]) -> None:
    """Print what will be trained, and on what."""
    print_parts(console, title, parameter_table(bundle.model))
    for line in training_lines(bundle.model, PARTS, part_of):
        console.print(line, markup=False)
    console.print(f"training    {facts(data.training)}", markup=False)
    console.print(f"validation  {facts(data.validation)}", markup=False)
    if data.test is not None:
        console.print(f"test        {facts(data.test)}", markup=False)
    console.print(data.note, markup=False)
