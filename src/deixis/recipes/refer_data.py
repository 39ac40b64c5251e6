"""What a segmenter run reads: training and validation data, and the conversations made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from deixis.data.conversation import has_pixels
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
    """Batched conversations.

    Raises:
        DataError: masks are to be described, and none of the first images has one with a phrase.
    """
    tokens = ConversationTokens.of(bundle)
    if options.caption_share:
        require_captions(training)
    return ReferFeed(
        QuestionDataset(training, options.max_masks, options.seed, options.behaviour, options.caption_share),
        tokens,
        views_of(bundle, options.max_tiles),
        tokens.pad_token_id,
        options.batch_size,
        options.gradient_accumulation_steps,
        options.seed,
        options.num_workers,
        options.max_tokens,
    )


def require_captions(dataset: ReferDataset, limit: int = 200) -> None:
    """See that there is something to learn to say.

    Raises:
        DataError: no expression of the first images has both words and a mask.
    """
    for index in range(min(limit, len(dataset))):
        if any(expression.texts and has_pixels(expression) for expression in dataset[index].expressions):
            return
    raise DataError(
        f"{dataset.name}: --caption-share needs masks with phrases, and the first {min(limit, len(dataset))} images "
        "have none; write captions first (deixis refer cycle), or leave it out"
    )


def views_of(bundle: Sa2vaBundle, most_tiles: int) -> Views:
    """The sizes in which a segmenter sees images and regions."""
    side = round(bundle.tokens_per_tile**0.5)
    released = bundle.behaviour == "sa2va"
    return Views(bundle.tile_px, most_tiles, bundle.sam_px, bundle.mask_px, side, released)


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
