"""Fine-tune a segmenter, from data to report, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.table import Table
from torch import nn

from deixis.console import Console
from deixis.evaluation.refer_iou import evaluate_segmentations
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.models.freezing import training_lines
from deixis.models.sa2va import Sa2vaBundle, parameter_table, part_of
from deixis.models.sa2va.parts import PARTS
from deixis.options.checks import A_SEGMENTER
from deixis.options.groups import Optimiser
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.model.choice import knowing
from deixis.recipes.refer.captions import NAMES as CAPTION_METRICS
from deixis.recipes.refer.captions import caption_values
from deixis.recipes.refer.cycle import read_masks
from deixis.recipes.refer.data import QUICK_IMAGES, QUICK_STEPS, facts, fingerprint, training_feed
from deixis.recipes.refer.dry_run import read_everything
from deixis.recipes.refer.features import frozen_features
from deixis.recipes.refer.generated import caption_folders, captions_wanted
from deixis.recipes.refer.model import language_parameters, make_refer_criterion, prepare_segmenter, save_segmenter
from deixis.recipes.refer.presence import emptied, every_mask_shown, fit_threshold, last_threshold, threshold_line
from deixis.recipes.refer.report import refer_pictures, write_refer_run_report
from deixis.recipes.refer.sources import read_refer_data
from deixis.recipes.run.data import RunData
from deixis.recipes.run.folder import run_folder, will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.result import keep_result, print_outcome, require_one_seed
from deixis.recipes.run.training import open_run, print_length, print_places, run_identity, run_training
from deixis.recipes.run.validation_losses import refer_validation_losses
from deixis.refer_records import ReferDataset
from deixis.reporting.log import read_outcome
from deixis.reporting.outcome import Outcome
from deixis.training.ema import WeightAverage
from deixis.training.loop import LoopSettings
from deixis.training.optim import build_adamw, parameter_groups
from deixis.training.processes import from_first, gather_lists, is_first_process, make_accelerator
from deixis.training.schedule import Schedule
from deixis.training.segmenter_task import SegmenterTask

# Options that may differ between a run and its resumption; see `finetune_detector`.
MAY_CHANGE = {
    *("output", "experiment_name", "resume", "auto_resume", "overwrite", "dry_run", "report", "report_images"),
    *(
        "cache_features",
        "cache_gib",
        "num_workers",
        "gpus",
        "save_interval",
        "log_interval",
        "eval_batch_size",
        "max_skipped",
        "max_unreadable_images",
    ),
    "teacher_layout",
    *("val_data", "val_images", "test_data", "test_images", "seeds", "val_loss_images"),
    *("data", "images", "format", "refcoco_dir", "sa1b_dir", "openimages_dir", "sav_dir"),
}


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
        DeixisError: options, data, model or folder cannot be used; or the run cannot go on.
        Terminated: SIGTERM came and the run was saved.
    """
    options.check()
    require_one_seed(options)
    with run_lock(run_folder(options), is_first_process() and not options.dry_run):
        return _finetune_segmenter(options)


def _finetune_segmenter(options: ReferTrainOptions) -> SegmenterResult:
    started = time.perf_counter()
    if options.quick:
        most_steps = min(QUICK_STEPS, options.max_steps or QUICK_STEPS)
        most_images = min(QUICK_IMAGES, options.max_val_images or QUICK_IMAGES)
        options = replace(options, max_steps=most_steps, max_val_images=most_images)
    accelerator = make_accelerator(options.precision, cpu=options.gpus == 0)
    resuming = will_resume(options)
    caption_folders(options, accelerator)
    data = read_refer_data(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)  # fresh adapters and projections are random: a resumed run needs the same
        bundle = prepare_segmenter(options)
    folders = (options.refcoco_dir, options.sa1b_dir, options.openimages_dir, options.sav_dir)
    bundle = knowing(bundle, options.model, A_SEGMENTER, options.data, *folders)
    feed = training_feed(data.training, options, bundle)
    console = Console(quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
    print_plan(console, options, bundle, data)
    settings, per_epoch = loop_settings(options), feed.steps_per_epoch(accelerator.num_processes)
    total_steps = settings.total_steps(per_epoch)
    print_length(console, settings, per_epoch, options.group(Optimiser).warmup(total_steps))
    bundle.model.to(accelerator.device)
    features = frozen_features(options, bundle, data.training, accelerator, console)
    if options.dry_run:
        make_refer_criterion(options)
        if accelerator.is_main_process:
            read_everything(feed, data, options.max_val_images)
        return SegmenterResult(run_folder(options), None, None, None)

    folder = open_run(options, accelerator, resuming)
    identity = run_identity(options, MAY_CHANGE, bundle.model, data, fingerprint, accelerator.num_processes)
    segmenter = Segmenter(bundle, accelerator.device, options.max_tiles)
    if resuming:
        segmenter.threshold = last_threshold(folder / "metrics.jsonl", segmenter.threshold)
    pictures = refer_pictures(segmenter, data.reported, options) if accelerator.is_main_process else []
    criterion = make_refer_criterion(options)
    losses = refer_validation_losses(options, bundle, criterion, data.validation, accelerator)
    task = SegmenterTask(
        accelerator.prepare_model(bundle.model),
        bundle.normalise_tiles,
        bundle.normalise_sam,
        criterion,
        feed,
        accelerator,
        language_parameters(bundle.model),
        evaluate=lambda: evaluate(segmenter, data.validation, options, accelerator, fit=True) | losses(),
        save_model=lambda path: save_segmenter(bundle.with_presence_threshold(segmenter.threshold), path),
        features=features,
    )
    task.words_steps = round(options.words_first * total_steps)
    rates = dict.fromkeys(dict(part_counts(bundle)), options.learning_rate)
    rates |= dict.fromkeys(("vision", "sam_encoder"), options.encoder_lr_factor * options.learning_rate)
    groups = parameter_groups(bundle.model.named_parameters(), part_of, rates, options.weight_decay)
    optimizer = build_adamw(groups)
    schedule = Schedule(options.schedule, total_steps, options.group(Optimiser).warmup(total_steps), options.lr_drop_at)
    average = WeightAverage(bundle.model, options.ema_decay) if options.ema_decay else None
    took = run_training(
        task,
        bundle.model,
        folder,
        settings,
        accelerator,
        optimizer,
        schedule,
        average,
        identity,
        console,
        resuming,
        options,
        options.baseline,
        None if data.test is None else partial(test_metrics, segmenter, data.test, options, accelerator),
    )

    teacher = folder / "teachers" / "sa2va"
    outcome = from_first(
        accelerator, read_outcome(folder / "metrics.jsonl", "gIoU") if accelerator.is_main_process else None
    )
    assert outcome is not None
    if accelerator.is_main_process:
        seconds = time.perf_counter() - started
        write_refer_run_report(options, bundle, data, pictures, folder, teacher, outcome, seconds, took)
        keep_result(folder, teacher, outcome)
    print_outcome(console, outcome, ("gIoU", "cIoU", *CAPTION_METRICS))
    if options.behaviour == "deixis":
        best = outcome.best.validation
        console.print(threshold_line(best, best.get("presence_threshold", segmenter.threshold)), markup=False)
    print_places(console, teacher, folder)
    accelerator.wait_for_everyone()
    before, after = outcome.reported(outcome.before), outcome.reported(outcome.best)
    return SegmenterResult(folder, teacher, before, after, outcome)


def test_metrics(
    segmenter: Segmenter, test: ReferDataset, options: ReferTrainOptions, accelerator: Accelerator, folder: Path | None
) -> dict[str, Any]:
    """Metrics on test data of the run's own segmenter as it is, or of the one in a folder."""
    if folder is not None:
        segmenter = load_segmenter(folder, accelerator.device, options.max_tiles)
    return evaluate(segmenter, test, options, accelerator)


def check_inputs(options: ReferTrainOptions) -> None:
    """Meet the likely errors before several processes are started, which would each tell them.

    Raises:
        DeixisError: options, data or folder cannot be used.
    """
    options.check()
    if options.seeds == 1:
        will_resume(options)
    make_refer_criterion(options)
    for wanted in captions_wanted(options):
        read_masks(wanted)  # the processes describe them, each its share
    if options.placeholder_captions or not (options.sa1b_dir or options.sav_dir):
        read_refer_data(options)


def evaluate(
    segmenter: Segmenter,
    validation: ReferDataset,
    options: ReferTrainOptions,
    accelerator: Accelerator,
    fit: bool = False,
) -> dict[str, Any]:
    """Metrics of the segmenter as it is, in the run's precision, each process taking its share of the images.

    Args:
        fit: first fit its presence threshold on the data.
    """
    batch_size = options.eval_batch_size or 4 * options.batch_size
    count = min(len(validation), options.max_val_images or len(validation))
    mine = range(accelerator.process_index, count, accelerator.num_processes)
    with accelerator.autocast(), every_mask_shown(segmenter):
        found = list(zip(mine, segmenter.run(validation, batch_size, mine), strict=True))
    everything = found
    if accelerator.num_processes > 1:
        everything = sorted(gather_lists(accelerator, found), key=lambda item: item[0])
    truth, shown = [sample for _, (sample, _) in everything], [answers for _, (_, answers) in everything]
    fitted = fit_threshold(segmenter, truth, shown) if fit else {}
    metrics = evaluate_segmentations(truth, emptied(segmenter, shown)).as_dict() | fitted
    if options.caption_share:
        captioner = Captioner(segmenter.bundle, accelerator.device, options.max_tiles)
        metrics |= caption_values(captioner, validation, options, accelerator)
    return metrics


def loop_settings(options: ReferTrainOptions) -> LoopSettings:
    """The options that the loop wants."""
    return LoopSettings(
        epochs=options.epochs,
        max_steps=options.max_steps,
        clip_norm=options.clip_norm,
        patience=options.early_stopping_patience,
        stop_after_epochs=options.stop_after_epochs,
        log_interval=options.log_interval,
        save_interval=options.save_interval,
        evaluate_every=options.evaluate_every,
        max_skipped=options.max_skipped,
        seed=options.seed,
    )


def part_counts(bundle: Sa2vaBundle) -> list[tuple[str, tuple[int, int]]]:
    """(part, (trainable, total parameters)) of every part."""
    return [(part, (trainable, total)) for part, trainable, total in parameter_table(bundle.model)]


def print_plan(
    console: Console,
    options: ReferTrainOptions,
    bundle: Sa2vaBundle,
    data: RunData[ReferDataset],
) -> None:
    """Print what will be trained, and on what."""
    adapters = f", LoRA r {options.lora_r} alpha {options.lora_alpha:g}" if options.lora else ""
    table = Table(title=f"{options.model}, behaviour {options.behaviour}{adapters}")
    for heading in ("part", "trainable", "total"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, (trainable, total) in part_counts(bundle):
        table.add_row(part, f"{trainable:,}" if trainable else "frozen", f"{total:,}")
    table.add_section()
    table.add_row("all", f"{count(bundle.model, True):,}", f"{count(bundle.model, False):,}")
    console.print(table)
    for line in training_lines(bundle.model, PARTS, part_of):
        console.print(line, markup=False)
    console.print(f"training    {facts(data.training)}", markup=False)
    console.print(f"validation  {facts(data.validation)}", markup=False)
    if data.test is not None:
        console.print(f"test        {facts(data.test)}", markup=False)
    console.print(data.note, markup=False)


def count(model: nn.Module, trainable: bool) -> int:
    """Parameters of a model, all or the trainable ones."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
