"""What a segmenter run reads: training and validation data, and the conversations made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from deixis.data.refer_collate import Views
from deixis.data.refer_loading import QuestionDataset
from deixis.data.refer_scenes import ReferScenes
from deixis.data.subset import ReferSubset
from deixis.errors import DataError
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle
from deixis.recipes.refer_options import ReferTrainOptions
from deixis.refer_records import ReferDataset
from deixis.training.refer_task import ReferFeed

VALIDATION_SHARE = 0.1
SPLIT_SEED = 0  # fixed, so that every run of a data set holds out the same images
QUICK_STEPS, QUICK_IMAGES = 20, 16


def held_out(dataset: ReferDataset) -> tuple[ReferSubset, ReferSubset]:
    """(training, validation): a tenth of the images, and at least one, is held out.

    Raises:
        DataError: there is only one image.
    """
    if len(dataset) < 2:
        raise DataError(f"{dataset.name}: one image cannot be both trained on and measured; give --val-data")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(dataset))
    count = max(1, round(VALIDATION_SHARE * len(dataset)))
    kept, out = (tuple(np.sort(part).tolist()) for part in (order[count:], order[:count]))
    return (
        ReferSubset(dataset, kept, f"{dataset.name}, less those held out"),
        ReferSubset(dataset, out, f"{dataset.name}, held out"),
    )


def training_feed(training: ReferDataset, options: ReferTrainOptions, bundle: Sa2vaBundle) -> ReferFeed:
    """Batched conversations."""
    tokens = ConversationTokens.of(bundle)
    return ReferFeed(
        QuestionDataset(training, options.max_masks, options.seed, options.behaviour),
        tokens,
        Views(bundle.tile_px, options.max_tiles, bundle.sam_px, bundle.mask_px),
        tokens.pad_token_id,
        options.batch_size,
        options.gradient_accumulation_steps,
        options.seed,
        options.num_workers,
        options.max_tokens,
    )


def fingerprint(dataset: ReferDataset) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if isinstance(dataset, ReferScenes):
        return dataset.name
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        sample = dataset[index]
        image = sample.image.name if isinstance(sample.image, Path) else ""
        masks = [[mask["counts"] for mask in expression.masks_rle] for expression in sample.expressions]
        texts = [expression.texts for expression in sample.expressions]
        digest.update(repr((image, sample.size_hw, texts, masks)).encode())
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"


def facts(dataset: ReferDataset, limit: int = 2000) -> str:
    """A data set in numbers, as one line."""
    count = min(len(dataset), limit)
    samples = [dataset[index] for index in range(count)]
    phrases = sum(len(expression.texts) for sample in samples for expression in sample.expressions)
    absent = sum(not expression.masks_rle for sample in samples for expression in sample.expressions)
    of_first = "" if count == len(dataset) else f" in the first {count:,}"
    return f"{dataset.name}: {len(dataset):,} images; {phrases:,} phrases, {absent:,} about nothing there{of_first}"
