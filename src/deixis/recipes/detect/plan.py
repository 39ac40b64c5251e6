"""What a detector run trains, on what: read and made before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deixis.batch_records import Batch
from deixis.console import Console
from deixis.data.checks.limits import ModelLimits
from deixis.data.detect.augment import PRESETS
from deixis.errors import OptionError
from deixis.models.checkpoints import DetectorBundle, detector_folder, load_any_detector
from deixis.models.edits.files import is_edited
from deixis.models.freezing import PARTS, part_of
from deixis.options.annotated_data import ClassTools
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_train import (
    DetectData,
    DetectImages,
    DetectLora,
    DetectParts,
    DetectTrainOptions,
    Forgetting,
)
from deixis.options.groups import Hardware, Loop, Optimiser
from deixis.recipes.data.survey import report_findings
from deixis.recipes.detect.data.facts import parts_of, warn_of_crowded_images
from deixis.recipes.detect.data.feed import training_feed
from deixis.recipes.detect.data.prompts import TrainingPrompts, training_prompts, with_wordings
from deixis.recipes.detect.data.sources import image_folders, read_training_data
from deixis.recipes.detect.forgetting import ForgettingData, read_forgetting_data
from deixis.recipes.detect.learning.keep import names_to_learn, read_replayed
from deixis.recipes.detect.learning.missing import repaired
from deixis.recipes.detect.model import prepare_model
from deixis.recipes.detect.names import wordings_lines
from deixis.recipes.detect.policy import default_augmentation, learning_rates, resolve
from deixis.recipes.model.choice import knowing
from deixis.recipes.run.data import RunData
from deixis.recipes.run.plan import print_length, print_parts
from deixis.recipes.run.training import Start, loop_settings
from deixis.records import Dataset
from deixis.text import listed
from deixis.training.feed import Feed
from deixis.training.run import LoopSettings


@dataclass(frozen=True)
class Plan:
    """What a run trains, on what.

    Attributes:
        options: resolved.
        rates: learning rate of each part of the model.
    """

    options: DetectTrainOptions
    data: RunData[Dataset]
    forgetting: ForgettingData | None
    bundle: DetectorBundle
    prompts: TrainingPrompts
    feed: Feed[Batch]
    rates: Mapping[str, float]
    settings: LoopSettings


def make_plan(options: DetectTrainOptions) -> Plan:
    """Read data and model, and let the recipe decide what the user did not."""
    paths = options.group(DetectData)
    augment = options.augment or default_augmentation(options)
    data = read_training_data(paths, options.group(ClassTools), masks=PRESETS[augment].paste > 0)
    reported = options.test_data or options.val_data or ", ".join(options.data)
    forgetting = read_forgetting_data(options.group(Forgetting), data.reported, reported)
    # Only now: the recipe is chosen by the number of images that are left for training.
    options = resolve(options, len(data.training))
    loop, lora = options.group(Loop), options.group(DetectLora)
    rates = learning_rates(options.group(DetectParts), lora, options.learning_rate, keep=options.keep)
    check_models(options)
    bundle = prepare_model(
        options.model,
        lora,
        rates,
        image_size=options.image_size,
        gradient_checkpointing=options.gradient_checkpointing,
        learned_names=names_to_learn(data.training) if options.keep == "prompt" else (),
        edited=options.keep == "edit",
        decoder=options.decoder,
    )
    bundle = knowing(bundle, options.model, A_DETECTOR, options.data)
    bundle = with_wordings(bundle, options.names, data.training.vocabulary.names, ", ".join(options.data))
    prompts = training_prompts(options.prompt_names, bundle, data.training)
    replayed = read_replayed(options.group(Forgetting), options.model) if options.keep == "replay" else None
    # Only what is shown in training is repaired: validation stays as people annotated it.
    shown = data.training
    if options.repair_missing:
        as_objects = options.repair_as == "objects"
        shown, line = repaired(shown, options.model, as_objects)
        data = replace(data, left_out=(*data.left_out, line))
    feed = training_feed(
        shown,
        prompts,
        bundle.image_size,
        data=paths,
        images=options.group(DetectImages),
        loop=loop,
        hardware=options.group(Hardware),
        seed=options.seed,
        replayed=replayed,
        replay_share=options.replay_share,
    )
    settings = loop_settings(loop, options.clip_norm, options.seed)
    return Plan(options, data, forgetting, bundle, prompts, feed, rates, settings)


def check_models(options: DetectTrainOptions) -> None:
    """Find what is wrong with the models of a run before its folder is made.

    Raises:
        OptionError: the base has edits already, to which --keep edit could not add another.
        ModelError: that of --compare-with cannot be read.
    """
    if options.keep == "edit" and is_edited(detector_folder(options.model)):
        raise OptionError(
            f"--keep edit: {options.model} is edited already; train from its base, 'deixis model edit add' joins both"
        )
    if options.compare_with:
        load_any_detector(options.compare_with)  # and read again to be measured: kept, it would take memory all along


def print_plan(plan: Plan, start: Start) -> None:
    """Print what will be trained, on what, how fast, and what is wrong with the data; a dry run decodes every image.

    Raises:
        DataError: in a dry run, images that cannot be decoded.
    """
    options, bundle, data, console = plan.options, plan.bundle, plan.data, start.console
    title = f"{options.model}, recipe {options.recipe}{', LoRA' if options.lora else ''}"
    print_parts(console, title, bundle.model, parts=PARTS, part_of=part_of, rates=plan.rates)
    names = data.training.vocabulary.names
    tested = "" if data.test is None else f", {len(data.test)} test"
    console.print(
        f"{len(data.training)} training and {len(data.validation)} validation images{tested}; "
        f"{len(names)} names: {listed(names, 12)}",
        markup=False,
    )
    for line in (data.note, *data.reviewed, *data.left_out, *wordings_lines(bundle.record.wordings)):
        console.print(line, markup=False)
    steps = plan.feed.steps_per_epoch(start.accelerator.num_processes)
    print_length(console, plan.settings, steps, options.group(Optimiser))
    if not start.is_first:
        return
    queries, most = bundle.model.config.num_queries, options.max_detections
    warn_of_crowded_images(data.training, queries, most, measured=False)
    for measured in filter(None, (data.validation, data.test)):
        warn_of_crowded_images(measured, queries, most)
    limits = ModelLimits(image_size=bundle.image_size, whose=options.model)
    report_run_findings(
        console,
        options.group(DetectData),
        limits,
        data,
        tools=options.group(ClassTools),
        decode=options.dry_run,
        workers=max(options.num_workers, 1),
    )


def report_run_findings(
    console: Console,
    paths: DetectData,
    limits: ModelLimits,
    data: RunData[Dataset],
    *,
    tools: ClassTools,
    decode: bool,
    workers: int,
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
        tools=tools,
        used=data.used,
    )
