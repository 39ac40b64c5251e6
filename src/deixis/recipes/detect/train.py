"""Fine-tune a detector, from data to report, read top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table
from torch import nn

from deixis.console import Console
from deixis.data.checks.limits import ModelLimits
from deixis.data.formats import read_dataset
from deixis.evaluation.coco_map import (
    MAX_DETECTIONS_FEDERATED,
    DetectionMetrics,
    detections_per_image,
    evaluate_detections,
)
from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import load_any_detector
from deixis.models.freezing import PARTS, parameter_table, part_of, training_lines
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.compiling import compile_layers
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.data.survey import report_findings
from deixis.recipes.detect.crowded import warn_of_crowded_images
from deixis.recipes.detect.data import (
    fingerprint,
    parts_of,
    read_measured,
    read_parts,
    read_training_data,
    training_feed,
    training_prompts,
)
from deixis.recipes.detect.forgetting import (
    ForgettingData,
    measure_forgetting,
    read_forgetting_data,
    tell_forgetting,
    write_forgetting,
)
from deixis.recipes.detect.model import make_criterion, make_denoise, prepare_model, save_trained
from deixis.recipes.detect.policy import learning_rates, resolve, warmup_steps
from deixis.recipes.detect.report import before_pictures, metrics_of, write_run_report
from deixis.recipes.model.choice import knowing
from deixis.recipes.run.data import RunData
from deixis.recipes.run.folder import run_folder, will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.result import keep_result, print_outcome, require_one_seed
from deixis.recipes.run.training import open_run, print_length, print_places, run_identity, run_training
from deixis.recipes.run.validation_losses import detector_validation_losses
from deixis.records import Dataset, Detections
from deixis.reporting.data import ForgettingFacts
from deixis.reporting.log import read_outcome
from deixis.reporting.outcome import Outcome
from deixis.training.detector_task import DetectorTask
from deixis.training.ema import WeightAverage
from deixis.training.loop import LoopSettings
from deixis.training.optim import build_adamw, parameter_groups
from deixis.training.processes import from_first, gather_lists, is_first_process, make_accelerator
from deixis.training.schedule import Schedule

# Options that may differ between a run and its resumption: they change neither weights nor metrics. The data is
# compared by its content.
MAY_CHANGE = {
    *("output", "experiment_name", "resume", "auto_resume", "overwrite", "dry_run", "report", "report_images"),
    *(
        "num_workers",
        "gpus",
        "save_interval",
        "log_interval",
        "eval_batch_size",
        "max_skipped",
        "max_unreadable_images",
    ),
    *("data", "images", "val_data", "val_images", "test_data", "test_images", "format", "seeds", "val_loss_images"),
    *("forgetting_data", "forgetting_images", "forgetting_sweep", "forgetting_max_images"),
}


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Attributes:
        folder: of the run.
        teacher: the best weights, to be loaded elsewhere; None after a dry run.
        before: metrics on test data, or on validation data where there is none; None where they were not measured.
        after: the same of the best weights.
        forgetting: the sweep between before and after; None where nobody asked.
        outcome: all that was measured, of the best and of the last epoch, on validation and on test data.
    """

    folder: Path
    teacher: Path | None
    before: DetectionMetrics | None
    after: DetectionMetrics | None
    forgetting: ForgettingFacts | None = None
    outcome: Outcome | None = None


def finetune(options: DetectTrainOptions) -> FinetuneResult:
    """Measure, fine-tune, measure again, report.

    Raises:
        DeixisError: options, data, model or folder cannot be used; or the run cannot go on.
        Terminated: SIGTERM came and the run was saved.
    """
    options.check()
    require_one_seed(options)
    with run_lock(run_folder(options), is_first_process() and not options.dry_run):
        return _finetune(options)


def _finetune(options: DetectTrainOptions) -> FinetuneResult:
    started = time.perf_counter()
    accelerator = make_accelerator(options.precision, cpu=options.gpus == 0)
    resuming = will_resume(options)
    data = read_training_data(options)
    forgetting_data = read_forgetting_data(options, data.reported)
    options = resolve(options, len(data.training))
    bundle = knowing(prepare_model(options), options.model, A_DETECTOR, options.data)
    prompts = training_prompts(options, bundle, data.training)
    feed = training_feed(data.training, options, prompts, bundle.image_size)
    console = Console(quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
    print_plan(console, options, bundle, data)
    settings, per_epoch = loop_settings(options), feed.steps_per_epoch(accelerator.num_processes)
    total_steps = settings.total_steps(per_epoch)
    print_length(console, settings, per_epoch, warmup_steps(options, total_steps))
    if accelerator.is_main_process:
        warn_of_crowded(options, bundle, data)
        report_findings_of(console, options, bundle, data)
    if options.dry_run:
        return FinetuneResult(run_folder(options), None, None, None)

    if options.compile:
        compile_layers(bundle.model, accelerator.device)
    folder = open_run(options, accelerator, resuming)
    identity = run_identity(options, MAY_CHANGE, bundle.model, data, fingerprint, accelerator.num_processes)

    model = accelerator.prepare_model(bundle.model)
    detector = Detector(bundle, accelerator.device)
    pictures = before_pictures(detector, data.reported, options) if accelerator.is_main_process else []
    if forgetting_data:  # one image now: old names that fit no prompt are told before training, not after it
        detector.predict_dataset(forgetting_data.old, 1, indices=[0])
    criterion = make_criterion(options, bundle)
    losses = detector_validation_losses(options, bundle, criterion, prompts, data.validation, accelerator)
    task = DetectorTask(
        model,
        bundle.normalise,
        criterion,
        feed,
        accelerator,
        evaluate=lambda: evaluate(detector, data.validation, options, accelerator).as_dict() | losses(),
        save_model=lambda path: save_trained(options, bundle, path, data.training.vocabulary.names),
        denoise=make_denoise(options),
    )
    groups = parameter_groups(bundle.model.named_parameters(), part_of, learning_rates(options), options.weight_decay)
    optimizer = build_adamw(groups)
    schedule = Schedule(options.schedule, total_steps, warmup_steps(options, total_steps), options.lr_drop_at)
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
        None if data.test is None else partial(test_metrics, detector, data.test, options, accelerator),
    )

    teacher = folder / "teachers" / ("grounding_dino_lora" if options.lora else "grounding_dino")
    outcome = from_first(
        accelerator, read_outcome(folder / "metrics.jsonl", "AP") if accelerator.is_main_process else None
    )
    assert outcome is not None
    forgetting = forgetting_of(options, folder, teacher, forgetting_data, accelerator) if forgetting_data else None
    if accelerator.is_main_process:
        seconds = time.perf_counter() - started
        write_run_report(options, bundle, data, pictures, folder, teacher, outcome, seconds, took, forgetting)
        keep_result(folder, teacher, outcome)
    print_outcome(console, outcome, ("AP",))
    print_places(console, teacher, folder)
    if forgetting:
        tell_forgetting(console, forgetting)
    accelerator.wait_for_everyone()
    before, after = metrics_of(outcome.reported(outcome.before)), metrics_of(outcome.reported(outcome.best))
    return FinetuneResult(folder, teacher, before, after, forgetting, outcome)


def test_metrics(
    detector: Detector, test: Dataset, options: DetectTrainOptions, accelerator: Accelerator, folder: Path | None
) -> dict[str, Any]:
    """Metrics on test data of the run's own detector as it is, or of the one in a folder."""
    if folder is not None:
        bundle = replace(load_any_detector(folder), image_size=detector.bundle.image_size)
        detector = Detector(bundle, accelerator.device)
    return evaluate(detector, test, options, accelerator).as_dict()


def forgetting_of(
    options: DetectTrainOptions, folder: Path, teacher: Path, data: ForgettingData, accelerator: Accelerator
) -> ForgettingFacts:
    """Measure what was forgotten, each process taking its share of the images, and write `forgetting.json`."""
    facts = measure_forgetting(
        options,
        folder / "checkpoints" / "best",
        teacher,
        data,
        lambda detector, dataset: evaluate(detector, dataset, options, accelerator),
        accelerator.device,
    )
    if accelerator.is_main_process:
        write_forgetting(folder / "forgetting.json", facts)
    return facts


def warn_of_crowded(options: DetectTrainOptions, bundle: GroundingDinoBundle, data: RunData[Dataset]) -> None:
    """See `warn_of_crowded_images`."""
    queries = bundle.model.config.num_queries
    warn_of_crowded_images(data.training, queries, options.max_detections, measured=False)
    for measured in (data.validation, data.test):
        if measured is not None:
            warn_of_crowded_images(measured, queries, options.max_detections)


def check_inputs(options: DetectTrainOptions) -> None:
    """Meet the likely errors before several processes are started, which would each tell them.

    Raises:
        DeixisError: options, annotations or folder cannot be used.
    """
    options.check()
    if options.seeds == 1:
        will_resume(options)
    read_parts(options)
    read_measured(options)
    if options.forgetting_data:
        read_dataset(options.forgetting_data, options.forgetting_images)


def evaluate(
    detector: Detector, validation: Dataset, options: DetectTrainOptions, accelerator: Accelerator
) -> DetectionMetrics:
    """Metrics of the detector as it is, in the run's precision, each process taking its share of the images."""
    with accelerator.autocast():
        return _evaluate(detector, validation, options, accelerator)


def _evaluate(
    detector: Detector, validation: Dataset, options: DetectTrainOptions, accelerator: Accelerator
) -> DetectionMetrics:
    batch_size = options.eval_batch_size or options.batch_size
    workers = max(options.num_workers, 1)
    if accelerator.num_processes == 1:
        return detector.evaluate(validation, batch_size, workers=workers, max_detections=options.max_detections)[0]
    mine = range(accelerator.process_index, len(validation), accelerator.num_processes)
    asked = options.max_detections or MAX_DETECTIONS_FEDERATED
    predicted = detector.predict_dataset(validation, batch_size, asked, mine, workers)
    found: list[tuple[int, Detections]] = list(zip(mine, predicted, strict=True))
    everything = [item for _, item in sorted(gather_lists(accelerator, found), key=lambda pair: pair[0])]
    truth = [validation[i] for i in range(len(validation))]
    most = options.max_detections or detections_per_image(truth)
    found_best = [one.best(most) for one in everything]
    return evaluate_detections(truth, found_best, validation.vocabulary, options.max_detections)


def report_findings_of(
    console: Console, options: DetectTrainOptions, bundle: GroundingDinoBundle, data: RunData[Dataset]
) -> None:
    """What `data check` finds on the data of the run; a dry run decodes every image for it.

    Raises:
        DataError: in a dry run, images that cannot be decoded.
    """
    count = len(options.data)
    folders = options.images if len(options.images) == count else (options.images or (None,))[:1] * count
    sets = [*zip(options.data, folders, parts_of(data.training), strict=True)]
    if options.val_data:
        sets.append((options.val_data, options.val_images, data.validation))
    if options.test_data and data.test is not None:
        sets.append((options.test_data, options.test_images, data.test))
    limits = ModelLimits(image_size=bundle.image_size, whose=options.model)
    report_findings(
        console,
        sets,
        options.format,
        limits,
        options.dry_run,
        max(options.num_workers, 1),
        training=len(options.data),
        max_unreadable=options.max_unreadable_images,
    )


def loop_settings(options: DetectTrainOptions) -> LoopSettings:
    """The options that the loop wants, resolved."""
    assert options.epochs is not None
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


def print_plan(
    console: Console, options: DetectTrainOptions, bundle: GroundingDinoBundle, data: RunData[Dataset]
) -> None:
    """Print what will be trained, on what, and how fast."""
    rates = learning_rates(options)
    table = Table(title=f"{options.model}, recipe {options.recipe}{', LoRA' if options.lora else ''}")
    for heading in ("part", "trainable", "total", "learning rate"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, trainable, total in parameter_table(bundle.model):
        rate = f"{rates[part]:.1e}" if trainable else "frozen"
        table.add_row(part, f"{trainable:,}", f"{total:,}", rate)
    table.add_section()
    table.add_row("all", f"{count(bundle.model, True):,}", f"{count(bundle.model, False):,}", "")
    console.print(table)
    for line in training_lines(bundle.model, PARTS, part_of):
        console.print(line, markup=False)
    names = data.training.vocabulary.names
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    tested = "" if data.test is None else f", {len(data.test)} test"
    console.print(
        f"{len(data.training)} training and {len(data.validation)} validation images{tested}; "
        f"{len(names)} names: {shown}",
        markup=False,
    )
    console.print(data.note, markup=False)


def count(model: nn.Module, trainable: bool) -> int:
    """Parameters of a model, all or the trainable ones."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
