"""Fine-tune a detector, from data to report, read top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from deixis.data.detect.wordings import wordings_of_classes
from deixis.data.formats import read_dataset
from deixis.evaluation.coco_map import DetectionMetrics
from deixis.inference.detect.detector import Detector
from deixis.models.checkpoints import load_any_detector
from deixis.models.freezing import parameter_table, part_of
from deixis.models.model_card import write_card
from deixis.options.annotated_data import ClassTools
from deixis.options.checks import wanted_precision
from deixis.options.detect_train import DetectData, DetectLoss, DetectRun, DetectTrainOptions
from deixis.options.groups import Hardware, Optimiser
from deixis.recipes.detect.data.facts import fingerprint
from deixis.recipes.detect.data.sources import read_all
from deixis.recipes.detect.forgetting import ForgettingData, measure_forgetting, print_forgetting, write_forgetting
from deixis.recipes.detect.learning.kept_weights import change_of
from deixis.recipes.detect.measure import DetectorMeasure, choose_sinks
from deixis.recipes.detect.model import make_criterion, make_denoise, save_trained
from deixis.recipes.detect.plan import Plan, make_plan, print_plan
from deixis.recipes.detect.policy import late_parts
from deixis.recipes.detect.report import (
    POLICY,
    BeforePicture,
    before_pictures,
    closing_lines,
    copy_weights,
    gain_over,
    metrics_of,
    report_facts,
    show_augmented,
)
from deixis.recipes.run.duration import print_duration
from deixis.recipes.run.ending import kept_weights
from deixis.recipes.run.folder import will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.report import finish_run
from deixis.recipes.run.result import keep_sinks, require_one_seed
from deixis.recipes.run.training import Job, OpenRun, Start, open_run, start_run, train_run
from deixis.recipes.run.validation_losses import detector_validation_losses
from deixis.reporting.data import ForgettingFacts
from deixis.reporting.outcome import Outcome
from deixis.training.processes import is_first_process
from deixis.training.tasks.detector import DetectorTask


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
        start = start_run(options.group(DetectRun), options.group(Hardware))
        plan = make_plan(options)
        print_plan(plan, start)
        if options.show_augmented and start.is_first:
            # Before training starts, so that a bad augmentation is seen while stopping costs nothing.
            show_augmented(options.show_augmented, plan.feed.dataset, str(plan.options.augment))
            start.console.print(f"augmented   {options.show_augmented}", markup=False)
        if options.dry_run:
            time_run(plan, start)
            return FinetuneResult(options.folder, None, None, None)
        return train_detector(plan, start)


def train_detector(plan: Plan, start: Start) -> FinetuneResult:
    """Measure, train, measure again, report."""
    options, bundle, data, accelerator = plan.options, plan.bundle, plan.data, start.accelerator
    # The folder is made once data and model are read: a run that cannot begin leaves nothing.
    opened = open_run(start, options, bundle.model, data=data, fingerprint=fingerprint)
    detector = Detector(bundle, accelerator.device)
    measure = measure_of(options, accelerator)
    job = make_job(plan, detector, measure)
    pictures = before_pictures(detector, data.reported, opened.pictures, options.eval_batch_size or 1)
    if plan.forgetting:  # one image now: old names that fit no prompt are reported before training, not after it
        detector.predict_dataset(plan.forgetting.old, 1, indices=[0])
    compared = measure.of_folder(options.compare_with, detector, data.reported) if options.compare_with else {}
    test = None if data.test is None else partial(measure.of_folder, detector=detector, dataset=data.test)
    took = train_run(opened, job, test)
    return finish(plan, opened, measure, pictures=pictures, took=took, other=compared.get("AP"))


def finish(
    plan: Plan,
    opened: OpenRun,
    measure: DetectorMeasure,
    *,
    pictures: list[BeforePicture],
    took: Mapping[str, str],
    other: float | None,
) -> FinetuneResult:
    """What the run came to: what was forgotten, the weights that are kept, the report.

    Args:
        other: AP of --compare-with on the data that is reported on.
    """
    options, folder, device = plan.options, opened.folder, opened.accelerator.device
    teacher = folder / "teachers" / ("grounding_dino_lora" if options.lora else "grounding_dino")
    forgetting = find_forgotten(plan.forgetting, options, folder, teacher, measure) if plan.forgetting else None
    outcome = finish_run(
        opened,
        teacher,
        ("AP",),
        keep=partial(copy_weights, teacher=teacher),
        facts=partial(
            report_facts,
            teacher=teacher,
            data=plan.data,
            pictures=pictures,
            forgetting=forgetting,
            gain=partial(gain_over, options.compare_with, other),
            batch_size=options.eval_batch_size or 1,
            device=device,
        ),
        policy=POLICY,
        parameters=parameter_table(plan.bundle.model),
        took=took,
        lines=partial(closing_lines, options, other),
    )
    if options.sinks:
        add_sinks(plan, opened, measure, teacher)
    if forgetting:
        print_forgetting(opened.console, forgetting)
    before, after = metrics_of(outcome.reported(outcome.before)), metrics_of(outcome.reported(outcome.best))
    return FinetuneResult(folder, teacher, before, after, forgetting, outcome)


def add_sinks(plan: Plan, opened: OpenRun, measure: DetectorMeasure, teacher: Path) -> None:
    """Try attention sinks on validation data; keep them, or that they do not help, with the teacher."""
    bundle = replace(load_any_detector(teacher), image_size=plan.bundle.image_size)
    detector = Detector(bundle, measure.accelerator.device)
    detector.calibration = {}  # fitted anew
    trial, sinks = choose_sinks(detector, plan.data.validation, plan.options.sinks, measure=measure)
    if opened.is_first:
        keep_sinks(teacher, trial, sinks, plan.options.calibrate)
        write_card(teacher)
    for line in trial.lines():
        opened.console.print(line, markup=False)


def make_job(plan: Plan, detector: Detector, measure: DetectorMeasure) -> Job:
    """What the loop trains, measures and saves."""
    options, bundle, validation, accelerator = plan.options, plan.bundle, plan.data.validation, measure.accelerator
    criterion = make_criterion(options.group(DetectLoss), bundle)
    losses = detector_validation_losses(
        bundle,
        criterion,
        plan.prompts,
        validation,
        accelerator,
        images=options.val_loss_images,
        batch_size=measure.batch_size,
    )
    names = plan.data.training.vocabulary.names
    adapter_of = options.model if options.lora else None
    task = DetectorTask(
        accelerator.prepare_model(bundle.model),
        bundle.normalise,
        criterion,
        feed=plan.feed,
        accelerator=accelerator,
        # `detector` holds the model that trains, not a copy
        evaluate=lambda: measure(detector, validation).as_dict() | losses(),
        save_model=lambda path: save_trained(bundle, path, names, adapter_of=adapter_of),
        denoise=make_denoise(options.group(DetectLoss)),
    )
    optimiser = options.group(Optimiser)
    change_best = change_of(plan, detector, measure) if options.keep in ("edit", "interpolate") else None
    return Job(
        task,
        bundle.model,
        part_of,
        plan.rates,
        optimiser,
        plan.settings,
        options.baseline,
        change_best,
        late_parts={} if options.lora else late_parts(options.recipe),
    )


def measure_of(options: DetectTrainOptions, accelerator: Accelerator) -> DetectorMeasure:
    """How the run measures."""
    batch_size = options.eval_batch_size or options.batch_size
    workers, precision = max(options.num_workers, 1), wanted_precision(options.threshold_for)
    return DetectorMeasure(accelerator, batch_size, workers, options.max_detections, precision)


def find_forgotten(
    data: ForgettingData, options: DetectTrainOptions, folder: Path, teacher: Path, measure: DetectorMeasure
) -> ForgettingFacts:
    """What the trained weights have forgotten, also written to `forgetting.json`; see `measure_forgetting`."""
    found = measure_forgetting(
        options.model,
        kept_weights(folder),
        teacher,
        data,
        is_adapter=options.lora,
        sweep=options.forgetting_sweep,
        image_size=options.image_size,
        measure=measure,
        device=measure.accelerator.device,
    )
    if measure.accelerator.is_main_process:
        write_forgetting(folder / "forgetting.json", found)
    return found


def time_run(plan: Plan, start: Start) -> None:
    """Print how long the run will take; see `print_duration`."""
    options, validation = plan.options, plan.data.validation
    detector, measure = Detector(plan.bundle, start.accelerator.device), measure_of(options, start.accelerator)

    def evaluate(images: Sequence[int]) -> object:
        return detector.predict_dataset(validation, measure.batch_size, indices=images)

    job = make_job(plan, detector, measure)
    print_duration(start, job, plan.data, evaluate, loss_images=options.val_loss_images)


def check_inputs(options: DetectTrainOptions) -> None:
    """Find the likely errors before several processes are started, which would each report them.

    Raises:
        DeixisError: options, annotations or folder cannot be used.
    """
    options.check()
    if options.seeds == 1:
        will_resume(options.group(DetectRun))
    paths = options.group(DetectData)
    parts, *_ = read_all(paths, options.group(ClassTools))
    names = list(dict.fromkeys(name for part in parts for name in part.vocabulary.names))
    wordings_of_classes(options.names, names, ", ".join(paths.data))
    if options.forgetting_data:
        read_dataset(options.forgetting_data, options.forgetting_images)
