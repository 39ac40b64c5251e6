"""Fine-tune a detector, from data to report, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deixis.console import Console
from deixis.data.checks.limits import ModelLimits
from deixis.data.formats import read_dataset
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector
from deixis.models.freezing import PARTS, parameter_table, part_of, training_lines
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.compiling import compile_layers
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_train import (
    DetectData,
    DetectHardware,
    DetectImages,
    DetectLora,
    DetectLoss,
    DetectParts,
    DetectRun,
    DetectTrainOptions,
    Forgetting,
)
from deixis.options.groups import Loop, Optimiser
from deixis.recipes.data.survey import report_findings
from deixis.recipes.detect.crowded import warn_of_crowded_images
from deixis.recipes.detect.data import (
    fingerprint,
    image_folders,
    parts_of,
    read_measured,
    read_parts,
    read_training_data,
    training_feed,
    training_prompts,
)
from deixis.recipes.detect.forgetting import (
    measure_forgetting,
    print_forgetting,
    read_forgetting_data,
    write_forgetting,
)
from deixis.recipes.detect.measure import DetectorMeasure
from deixis.recipes.detect.model import make_criterion, make_denoise, prepare_model, save_trained
from deixis.recipes.detect.policy import learning_rates, resolve
from deixis.recipes.detect.report import before_pictures, metrics_of, write_detector_report
from deixis.recipes.model.choice import knowing
from deixis.recipes.run.data import RunData
from deixis.recipes.run.folder import will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.plan import print_length, print_parts
from deixis.recipes.run.result import require_one_seed
from deixis.recipes.run.training import finish_run, loop_settings, open_run, train_run
from deixis.recipes.run.validation_losses import detector_validation_losses
from deixis.records import Dataset
from deixis.reporting.data import ForgettingFacts
from deixis.reporting.outcome import Outcome
from deixis.text import listed
from deixis.training.detector_task import DetectorTask
from deixis.training.processes import is_first_process, make_accelerator


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
        DeixisError: options, data, model or folder cannot be used; or the run cannot continue.
        Terminated: SIGTERM came and the run was saved.
    """
    options.check()
    require_one_seed(options.seeds)
    with run_lock(options.folder, is_first_process() and not options.dry_run):
        return _finetune(options)


def _finetune(options: DetectTrainOptions) -> FinetuneResult:
    started = time.perf_counter()
    accelerator = make_accelerator(options.precision, cpu=options.gpus == 0)
    console = Console(quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
    resuming = will_resume(options.group(DetectRun))
    paths = options.group(DetectData)
    data = read_training_data(paths)
    reported = options.test_data or options.val_data or ", ".join(options.data)
    forgetting_data = read_forgetting_data(options.group(Forgetting), data.reported, reported)

    options = resolve(options, len(data.training))
    loop, optimiser, lora = options.group(Loop), options.group(Optimiser), options.group(DetectLora)
    images, hardware, loss = options.group(DetectImages), options.group(DetectHardware), options.group(DetectLoss)
    rates = learning_rates(options.group(DetectParts), lora, options.learning_rate)
    bundle = prepare_model(
        options.model,
        lora,
        rates,
        image_size=options.image_size,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    bundle = knowing(bundle, options.model, A_DETECTOR, options.data)
    prompts = training_prompts(options.prompt_names, bundle, data.training)
    feed = training_feed(
        data.training,
        prompts,
        bundle.image_size,
        data=paths,
        images=images,
        loop=loop,
        hardware=hardware,
        seed=options.seed,
    )
    title = f"{options.model}, recipe {options.recipe}{', LoRA' if options.lora else ''}"
    print_plan(console, title, rates, bundle, data)
    settings = loop_settings(loop, options.clip_norm, options.seed)
    print_length(console, settings, feed.steps_per_epoch(accelerator.num_processes), optimiser)
    if accelerator.is_main_process:
        warn_of_crowded(bundle.model.config.num_queries, options.max_detections, data)
        limits = ModelLimits(image_size=bundle.image_size, whose=options.model)
        report_run_findings(console, paths, limits, data, decode=options.dry_run, workers=max(options.num_workers, 1))
    if options.dry_run:
        return FinetuneResult(options.folder, None, None, None)

    if options.compile:
        compile_layers(bundle.model, accelerator.device)
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
    model = accelerator.prepare_model(bundle.model)
    detector = Detector(bundle, accelerator.device)
    drawn = options.report_images if options.report and accelerator.is_main_process else 0
    pictures = before_pictures(detector, data.reported, drawn, loop.eval_batch_size or 1)
    if forgetting_data:  # one image now: old names that fit no prompt are reported before training, not after it
        detector.predict_dataset(forgetting_data.old, 1, indices=[0])
    batch_size = loop.eval_batch_size or loop.batch_size
    measure = DetectorMeasure(accelerator, batch_size, max(options.num_workers, 1), options.max_detections)
    criterion = make_criterion(loss, bundle)
    losses = detector_validation_losses(
        bundle, criterion, prompts, data.validation, accelerator, images=loop.val_loss_images, batch_size=batch_size
    )
    names = data.training.vocabulary.names
    adapter_of = options.model if options.lora else None
    task = DetectorTask(
        model,
        bundle.normalise,
        criterion,
        feed=feed,
        accelerator=accelerator,
        evaluate=lambda: measure(detector, data.validation).as_dict() | losses(),
        save_model=lambda path: save_trained(bundle, path, names, adapter_of=adapter_of),
        denoise=make_denoise(loss),
    )
    took = train_run(
        opened,
        task,
        bundle.model,
        optimiser,
        learning_rates=rates,
        part_of=part_of,
        baseline=options.baseline,
        measure_test=None if data.test is None else partial(measure.of_folder, detector=detector, dataset=data.test),
    )

    folder = opened.folder
    teacher = folder / "teachers" / ("grounding_dino_lora" if options.lora else "grounding_dino")
    forgetting = None
    if forgetting_data:
        forgetting = measure_forgetting(
            options.model,
            folder / "checkpoints" / "best",
            teacher,
            forgetting_data,
            is_adapter=options.lora,
            sweep=options.forgetting_sweep,
            image_size=options.image_size,
            measure=measure,
            device=accelerator.device,
        )
        if accelerator.is_main_process:
            write_forgetting(folder / "forgetting.json", forgetting)

    def write(outcome: Outcome, seconds: float) -> None:
        write_detector_report(
            opened,
            bundle,
            data,
            pictures,
            teacher=teacher,
            outcome=outcome,
            seconds=seconds,
            took=took,
            forgetting=forgetting,
            batch_size=loop.eval_batch_size or 1,
            page=options.report,
        )

    outcome = finish_run(opened, teacher, ("AP",), write=write)
    if forgetting:
        print_forgetting(console, forgetting)
    before, after = metrics_of(outcome.reported(outcome.before)), metrics_of(outcome.reported(outcome.best))
    return FinetuneResult(folder, teacher, before, after, forgetting, outcome)


def check_inputs(options: DetectTrainOptions) -> None:
    """Find the likely errors before several processes are started, which would each report them.

    Raises:
        DeixisError: options, annotations or folder cannot be used.
    """
    options.check()
    if options.seeds == 1:
        will_resume(options.group(DetectRun))
    paths = options.group(DetectData)
    read_parts(paths)
    read_measured(paths)
    if options.forgetting_data:
        read_dataset(options.forgetting_data, options.forgetting_images)


def warn_of_crowded(queries: int, max_detections: int | None, data: RunData[Dataset]) -> None:
    """See `warn_of_crowded_images`."""
    warn_of_crowded_images(data.training, queries, max_detections, measured=False)
    for measured in (data.validation, data.test):
        if measured is not None:
            warn_of_crowded_images(measured, queries, max_detections)


def report_run_findings(
    console: Console, paths: DetectData, limits: ModelLimits, data: RunData[Dataset], *, decode: bool, workers: int
) -> None:
    """What `data check` finds on the data of the run; a dry run decodes every image for it.

    Raises:
        DataError: in a dry run, images that cannot be decoded.
    """
    sets = [*zip(paths.data, image_folders(paths), parts_of(data.training), strict=True)]
    if paths.val_data:
        sets.append((paths.val_data, paths.val_images, data.validation))
    if paths.test_data and data.test is not None:
        sets.append((paths.test_data, paths.test_images, data.test))
    report_findings(
        console,
        sets,
        paths.format,
        limits,
        decode,
        workers,
        training=len(paths.data),
        max_unreadable=paths.max_unreadable_images,
    )


def print_plan(
    console: Console, title: str, rates: Mapping[str, float], bundle: GroundingDinoBundle, data: RunData[Dataset]
) -> None:
    """Print what will be trained, on what, and how fast."""
    print_parts(console, title, parameter_table(bundle.model), rates)
    for line in training_lines(bundle.model, PARTS, part_of):
        console.print(line, markup=False)
    names = data.training.vocabulary.names
    tested = "" if data.test is None else f", {len(data.test)} test"
    console.print(
        f"{len(data.training)} training and {len(data.validation)} validation images{tested}; "
        f"{len(names)} names: {listed(names, 12)}",
        markup=False,
    )
    console.print(data.note, markup=False)
