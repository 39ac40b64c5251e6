"""Fine-tune a segmenter, from data to report, read top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from deixis.errors import OptionError
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import Sa2vaBundle, parameter_table, part_of
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.parts import PARTS, layers_of
from deixis.options.groups import Lora, Optimiser
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_train import (
    Conversations,
    PublicData,
    ReferHardware,
    ReferLoss,
    ReferParts,
    ReferRun,
    ReferTrainOptions,
)
from deixis.recipes.refer.cycle import read_masks
from deixis.recipes.refer.data.facts import fingerprint
from deixis.recipes.refer.data.generated import caption_folders, captions_wanted
from deixis.recipes.refer.features import frozen_features
from deixis.recipes.refer.measure import CAPTION_METRICS, SegmenterMeasure
from deixis.recipes.refer.model import (
    adapter_base,
    language_parameters,
    make_refer_criterion,
    save_segmenter,
    write_teacher,
)
from deixis.recipes.refer.plan import Plan, limited, make_plan, print_plan, read_data, read_everything
from deixis.recipes.refer.presence import last_threshold, threshold_line
from deixis.recipes.refer.report import POLICY, BeforeAnswers, chat_line, refer_pictures, report_facts
from deixis.recipes.run.duration import print_duration
from deixis.recipes.run.folder import will_resume
from deixis.recipes.run.lock import run_lock
from deixis.recipes.run.report import finish_run
from deixis.recipes.run.result import require_one_seed
from deixis.recipes.run.training import Job, OpenRun, Start, open_run, start_run, train_run
from deixis.recipes.run.validation_losses import chat_measure, refer_validation_losses
from deixis.reporting.outcome import Outcome
from deixis.training.processes import is_first_process
from deixis.training.sharding import ShardedModel, whole
from deixis.training.tasks.frozen_features import FrozenFeatures
from deixis.training.tasks.segmenter import SegmenterTask


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
        start = start_run(options.group(ReferRun), options.group(ReferHardware))
        # Before the plan, which reads these captions as training data.
        caption_folders(wanted_captions(options), start.accelerator)
        plan = make_plan(limited(options))
        print_plan(plan, start)
        hardware, tiles = options.group(ReferHardware), options.max_tiles
        features = frozen_features(hardware, plan.bundle, plan.data.training, max_tiles=tiles, start=start)
        if options.dry_run:
            if start.is_first:
                read_everything(plan.feed, plan.data, plan.options.max_val_images)
            time_run(plan, start)
            return SegmenterResult(options.folder, None, None, None)
        return train_segmenter(plan, start, features)


def train_segmenter(plan: Plan, start: Start, features: FrozenFeatures | None) -> SegmenterResult:
    """Measure, train, measure again, report."""
    options, bundle, data, accelerator = plan.options, plan.bundle, plan.data, start.accelerator
    samples = options.batch_size * options.gradient_accumulation_steps * accelerator.num_processes
    opened = open_run(
        start,
        options,
        bundle.model,
        data=data,
        fingerprint=fingerprint,
        samples_per_step=samples if options.shard_model else None,
    )
    # Only now: `open_run` has read the whole weights, of which each process then keeps its shards.
    sharding = divided(bundle, accelerator) if options.shard_model else None
    segmenter = Segmenter(bundle, accelerator.device, options.max_tiles)
    if start.resuming:
        # the log has it; checkpoints hold weights only
        segmenter.threshold = last_threshold(opened.folder / "metrics.jsonl", segmenter.threshold)
    with whole(sharding):
        pictures = refer_pictures(segmenter, data.reported, opened.pictures, options.eval_batch_size or 4)
    measure = measure_of(options, accelerator)
    test = None if data.test is None else partial(measure.of_folder, segmenter=segmenter, dataset=data.test)
    took = train_run(opened, make_job(plan, segmenter, measure, features, sharding=sharding), test)
    return finish(plan, opened, segmenter, pictures, took)


def finish(
    plan: Plan, opened: OpenRun, segmenter: Segmenter, pictures: Sequence[BeforeAnswers], took: Mapping[str, str]
) -> SegmenterResult:
    """What the run came to: the weights that are kept, the report."""
    options, teacher = plan.options, opened.folder / "teachers" / "sa2va"

    def threshold_lines(outcome: Outcome) -> list[str]:
        best = outcome.best.validation
        released = options.behaviour == "sa2va"
        threshold = best.get("presence_threshold", segmenter.threshold)
        return ([] if released else [threshold_line(best, threshold)]) + chat_line(outcome)

    outcome = finish_run(
        opened,
        teacher,
        ("gIoU", "cIoU", *CAPTION_METRICS),
        keep=partial(write_teacher, options.group(ReferParts), teacher=teacher),
        facts=partial(
            report_facts,
            best=opened.folder / "checkpoints" / "best",
            data=plan.data,
            pictures=pictures,
            max_tiles=options.max_tiles,
            batch_size=options.eval_batch_size or 4,
            device=segmenter.device,
        ),
        policy=POLICY,
        parameters=parameter_table(plan.bundle.model),
        took=took,
        lines=threshold_lines,
    )
    before, after = outcome.reported(outcome.before), outcome.reported(outcome.best)
    return SegmenterResult(opened.folder, teacher, before, after, outcome)


def make_job(
    plan: Plan,
    segmenter: Segmenter,
    measure: SegmenterMeasure,
    features: FrozenFeatures | None = None,
    *,
    sharding: ShardedModel[Sa2va] | None = None,
) -> Job:
    """What the loop trains, measures and saves."""
    options, bundle, validation, accelerator = plan.options, plan.bundle, plan.data.validation, measure.accelerator
    adapter_of = adapter_base(options.group(ReferParts), options.group(Lora))
    losses = refer_validation_losses(
        bundle,
        plan.criterion,
        validation,
        accelerator,
        options.group(Conversations),
        images=options.val_loss_images,
        batch_size=options.batch_size,
        max_val_images=options.max_val_images,
    )
    chat = chat_measure(
        bundle, plan.criterion, plan.data.chat, accelerator, options.group(Conversations), batch_size=options.batch_size
    )

    def evaluate() -> Mapping[str, Any]:
        with whole(sharding):
            return measure(segmenter, validation, fit=True) | losses() | chat()

    def save_model(folder: Path) -> None:
        saved = bundle if sharding is None else replace(bundle, model=sharding.plain())
        save_segmenter(saved.with_presence_threshold(segmenter.threshold), folder, adapter_of=adapter_of)

    task = SegmenterTask(
        bundle.model if sharding else accelerator.prepare_model(bundle.model),
        bundle.normalise_tiles,
        bundle.normalise_sam,
        criterion=plan.criterion,
        feed=plan.feed,
        accelerator=accelerator,
        # shards are not what a forward pass computes with, so gradients of single losses cannot be asked for
        language=[] if sharding else language_parameters(bundle.model),
        evaluate=evaluate,
        save_model=save_model,
        features=features,
    )
    rates = dict.fromkeys(PARTS, options.learning_rate)
    optimiser = options.group(Optimiser)
    return Job(task, bundle.model, part_of, rates, optimiser, plan.settings, options.baseline, sharding=sharding)


def divided(bundle: Sa2vaBundle, accelerator: Accelerator) -> ShardedModel[Sa2va]:
    """The model in shards, in the run's arithmetic. Weights come from the mapped files (`load_sa2va`): a process reads
    those of its shards, and its device never holds more than one layer whole.

    Raises:
        OptionError: there is one process only.
    """
    if accelerator.num_processes == 1:
        raise OptionError(
            "--shard-model divides the model among processes; start several, as in --gpus 2 or by torchrun"
        )
    model = accelerator.prepare_model(bundle.model, device_placement=False, evaluation_mode=True)
    return ShardedModel(model, layers_of(model), accelerator.device)


def measure_of(options: ReferTrainOptions, accelerator: Accelerator) -> SegmenterMeasure:
    """How the run measures."""
    return SegmenterMeasure(
        accelerator,
        options.eval_batch_size or 4 * options.batch_size,
        max_images=options.max_val_images,
        max_tiles=options.max_tiles,
        captions=options.caption_share > 0,
    )


def time_run(plan: Plan, start: Start) -> None:
    """Print how long the run will take without cached features, which would be written; see `print_duration`."""
    options, validation = plan.options, plan.data.validation
    sharding = divided(plan.bundle, start.accelerator) if options.shard_model else None
    segmenter = Segmenter(plan.bundle, start.accelerator.device, options.max_tiles)
    measure = measure_of(options, start.accelerator)

    def evaluate(images: Sequence[int]) -> object:
        with whole(sharding):
            return list(segmenter.run(validation, measure.batch_size, images))

    job, most = make_job(plan, segmenter, measure, sharding=sharding), options.max_val_images
    print_duration(start, job, plan.data, evaluate, loss_images=options.val_loss_images, max_images=most)


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
