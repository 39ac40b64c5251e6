"""What a detector trains on, in batches: augmented, mixed, images of one shape together."""

from __future__ import annotations

import numpy as np

from deixis.batch_records import Batch
from deixis.data.batching.loading import UnreadableImages
from deixis.data.batching.shard_order import Ratios
from deixis.data.detect.augment import PRESETS, Augmentation, Augmented
from deixis.data.detect.collate import SampleDataset, collate_pairs
from deixis.data.detect.transforms import train_transform
from deixis.data.formats.odvg.read import OdvgDataset
from deixis.data.formats.shards import shard_index, shard_sizes
from deixis.data.formats.shards.index import ShardRatios
from deixis.data.scenes.images import SceneDataset
from deixis.data.sets.mixing import Balance, Joined, Mixture, repeat_factors
from deixis.data.sets.subset import Subset
from deixis.options.detect_train import DetectData, DetectImages
from deixis.options.groups import Hardware, Loop
from deixis.recipes.detect.data.facts import joined, lies_in_files, parts_of
from deixis.recipes.detect.data.prompts import FittedTransform, TrainingPrompts
from deixis.records import Dataset
from deixis.training.feed import Feed

MULTI_SCALE = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of the short side: DETR's 480 to 800


def training_feed(
    training: Dataset,
    prompts: TrainingPrompts,
    image_size: tuple[int, int],
    *,
    data: DetectData,
    images: DetectImages,
    loop: Loop,
    hardware: Hardware,
    seed: int,
    replayed: Dataset | None = None,
    replay_share: float = 0.0,
) -> Feed[Batch]:
    """Augmented, prompted, batched training data.

    Args:
        replayed: old pictures that are shown beside the training data, as `replay_share` of an epoch.
    """
    short_px, long_px = image_size
    preset, plain = PRESETS[images.augment or "light"], images.augment in ("none", "flips")
    sizes = [short_px] if plain else [round(short_px * share) for share in MULTI_SCALE]
    flips = 0.0 if images.augment == "none" else images.flip_probability
    transform = train_transform(sizes, long_px, 0.0 if plain else 0.5, flips)
    if preset != Augmentation():
        transform = Augmented(transform, preset)
    shown = mixed(training, data, seed, replayed=replayed, replay_share=replay_share)
    return Feed(
        dataset=SampleDataset(
            shown, FittedTransform(transform, prompts), prompts, seed, decode_short_px=2 * short_px, mixed=preset
        ),
        collate=collate_pairs,
        batch_size=loop.batch_size,
        accumulation=loop.gradient_accumulation_steps,
        seed=seed,
        workers=hardware.num_workers,
        # of the data sets themselves: `Feed` picks those that an epoch shows
        aspect_ratios=aspect_ratios(training if replayed is None else joined([*parts_of(training), replayed])),
        shard_sizes=shard_sizes(shown),
        unreadable=UnreadableImages(data.max_unreadable_images),
    )


def mixed(training: Dataset, data: DetectData, seed: int, *, replayed: Dataset | None, replay_share: float) -> Dataset:
    """What epochs show: the training data, with its parts weighted, and with old pictures; see `training_feed`."""
    parts = parts_of(training)
    if data.balance_classes:
        samples = (part[index] for part in parts for index in range(len(part)))
        shown = [{sample.vocabulary.names[c] for c in sample.present_class_ids} for sample in samples]
        return Joined(parts, Balance.of(repeat_factors(shown, data.balance_classes), seed))
    if not (data.data_weights or data.epoch_length or replayed):
        return training
    sizes = [len(part) for part in parts]
    if replayed is None:
        return Joined(parts, Mixture.of(sizes, data.data_weights, data.epoch_length, seed))
    weights = data.data_weights or sizes
    # The old pictures have their share, and the rest is divided as the weights say.
    of_new = (1 - replay_share) / sum(weights)
    shares = [*(weight * of_new for weight in weights), replay_share]
    # Longer by the old pictures, so that an epoch shows as many of the new ones as without them.
    length = round((data.epoch_length or sum(sizes)) / (1 - replay_share))
    return Joined([*parts, replayed], Mixture.of([*sizes, len(replayed)], shares, length, seed))


def aspect_ratios(dataset: Dataset) -> Ratios | None:
    """Width over height of every image, to batch like with like; None where that would mean decoding them."""
    shards = shard_index(dataset)
    if shards is not None:
        return ShardRatios(shards)
    if isinstance(dataset, Joined):
        parts = [np.asarray(ratios) for part in dataset.parts if (ratios := aspect_ratios(part)) is not None]
        return np.concatenate(parts) if len(parts) == len(dataset.parts) else None
    if isinstance(dataset, Subset):
        whole = aspect_ratios(dataset.dataset)
        return None if whole is None else whole[np.array(dataset.indices)]
    if isinstance(dataset, SceneDataset | OdvgDataset):  # both know sizes without making samples
        size_hw = dataset.size_hw
    elif lies_in_files(dataset):

        def size_hw(index: int) -> tuple[int, int]:
            return dataset[index].size_hw

    else:
        return None
    sizes = (size_hw(index) for index in range(len(dataset)))
    return np.fromiter((width / height for height, width in sizes), np.float32, len(dataset))
