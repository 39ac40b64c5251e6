"""What a segmenter run trains, on what: read and made before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from deixis.batch_records import ReferBatch
from deixis.data.refer.loading import decoded
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import Sa2vaBundle, part_of
from deixis.models.sa2va.parts import PARTS
from deixis.options.checks import A_SEGMENTER
from deixis.options.groups import Loop, Lora, Optimiser
from deixis.options.refer_train import (
    Conversations,
    PublicData,
    ReferData,
    ReferForgetting,
    ReferLoss,
    ReferParts,
    ReferTrainOptions,
)
from deixis.progress_bar import ProgressBar
from deixis.recipes.model.choice import knowing
from deixis.recipes.refer.data.facts import facts
from deixis.recipes.refer.data.feed import QUICK_IMAGES, QUICK_STEPS, training_feed
from deixis.recipes.refer.data.sources import read_refer_data
from deixis.recipes.refer.model import make_refer_criterion, prepare_segmenter
from deixis.recipes.run.data import RunData
from deixis.recipes.run.plan import print_length, print_parts
from deixis.recipes.run.training import Start, loop_settings
from deixis.refer_records import ReferDataset
from deixis.training.feed import Feed
from deixis.training.run import LoopSettings


@dataclass(frozen=True)
class Plan:
    """What a run trains, on what."""

    options: ReferTrainOptions
    data: RunData[ReferDataset]
    bundle: Sa2vaBundle
    feed: Feed[ReferBatch]
    criterion: ReferCriterion
    settings: LoopSettings


def limited(options: ReferTrainOptions) -> ReferTrainOptions:
    """The options with the limits of --quick."""
    if not options.quick:
        return options
    most_steps = min(QUICK_STEPS, options.max_steps or QUICK_STEPS)
    most_images = min(QUICK_IMAGES, options.max_val_images or QUICK_IMAGES)
    return replace(options, max_steps=most_steps, max_val_images=most_images)


def make_plan(options: ReferTrainOptions) -> Plan:
    """Read data and model."""
    criterion = make_refer_criterion(options.group(ReferLoss))
    data = read_data(options)
    bundle = prepare_segmenter(
        options.group(ReferParts),
        options.group(Lora),
        options.behaviour,
        seed=options.seed,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    folders = (options.refcoco_dir, options.sa1b_dir, options.openimages_dir, options.sav_dir)
    bundle = knowing(bundle, options.model, A_SEGMENTER, options.data, *folders)
    loop = options.group(Loop)
    feed = training_feed(
        data.training,
        bundle,
        options.group(Conversations),
        loop,
        seed=options.seed,
        workers=options.num_workers,
        max_unreadable=options.max_unreadable_images,
    )
    return Plan(options, data, bundle, feed, criterion, loop_settings(loop, options.clip_norm, options.seed))


def read_data(options: ReferTrainOptions) -> RunData[ReferDataset]:
    """See `read_refer_data`."""
    groups = options.group(ReferData), options.group(PublicData), options.group(ReferForgetting)
    return read_refer_data(*groups, folder=options.folder, seed=options.seed)


def print_plan(plan: Plan, start: Start) -> None:
    """Print what will be trained, on what, and how long."""
    options, data, console = plan.options, plan.data, start.console
    adapters = f", LoRA r {options.lora_r} alpha {options.lora_alpha:g}" if options.lora else ""
    title = f"{options.model}, behaviour {options.behaviour}{adapters}"
    print_parts(console, title, plan.bundle.model, parts=PARTS, part_of=part_of)
    sets = {"training": data.training, "validation": data.validation, "test": data.test, "forgetting": data.chat}
    for role, dataset in sets.items():
        if dataset is not None:
            console.print(f"{role:<12}{facts(dataset)}", markup=False)
    console.print(data.note, markup=False)
    steps = plan.feed.steps_per_epoch(start.accelerator.num_processes)
    print_length(console, plan.settings, steps, options.group(Optimiser))


def read_everything(feed: Feed[Any], data: RunData[ReferDataset], max_val_images: int | None) -> None:
    """Every training sample as a step would be given it, every picture that is measured.

    Raises:
        DataError: a picture or clip that cannot be used, a conversation over --max-tokens.
    """
    with ProgressBar("reading training data") as progress:
        _each(len(feed.dataset), partial(_collated, feed), progress)
    for name, part in (("validation data", data.validation), ("test data", data.test)):
        if part is not None:
            with ProgressBar(f"reading {name}") as progress:
                _each(min(len(part), max_val_images or len(part)), partial(_decoded, part), progress)


def _decoded(part: ReferDataset, index: int) -> object:
    return decoded(part[index])


def _collated(feed: Feed[Any], index: int) -> object:
    return feed.collate([feed.dataset[0, index]])


def _each(count: int, read: Callable[[int], object], progress: Callable[[int, int], None]) -> None:
    for index in range(count):
        read(index)
        progress(index + 1, count)
