"""What a segmenter run reads: training and validation data, and the conversations made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.conversation import has_pixels
from deixis.data.looks import groups_of
from deixis.data.refer_collate import Views
from deixis.data.refer_loading import QuestionDataset
from deixis.data.refer_mixing import ReferMix
from deixis.data.refer_scenes import ReferScenes
from deixis.data.split import looks_of
from deixis.data.subset import ReferSubset
from deixis.errors import DataError
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle
from deixis.recipes.refer_options import ReferTrainOptions
from deixis.refer_records import ReferDataset
from deixis.training.refer_task import ReferFeed

VALIDATION_SHARE = 0.1
SPLIT_SEED = 0  # fixed, so that every run of a data set holds out the same images
QUICK_STEPS, QUICK_IMAGES = 20, 16


def held_out(sources: Sequence[ReferDataset]) -> list[tuple[ReferSubset, ReferSubset]]:
    """(training, validation) of each data set: a tenth of its images, and at least one, is held out.

    An image that is held out of one data set is trained on in none, nor is a copy or near copy of it: RefCOCO and
    RefCOCO+ ask about the same photographs. Groups of copies stay together, so a little more may be held out.

    Raises:
        DataError: a data set of which nothing would be left to train on; an image cannot be read.
    """
    groups = _image_groups(sources)
    out: set[int] = set()
    for number, source in enumerate(sources):
        mine = [(place, sum(n == number for n, _ in group)) for place, group in enumerate(groups)]
        held = sum(count for place, count in mine if place in out)
        for at in np.random.default_rng(SPLIT_SEED).permutation(len(groups)):
            place, count = mine[at]
            if held >= max(1, round(VALIDATION_SHARE * len(source))):
                break
            if count and place not in out:
                out.add(place)
                held += count
    is_out = {item for place in out for item in groups[place]}
    parts = []
    for number, source in enumerate(sources):
        left = tuple(i for i in range(len(source)) if (number, i) not in is_out)
        taken = tuple(i for i in range(len(source)) if (number, i) in is_out)
        if not left:
            raise DataError(f"{source.name}: its images cannot be both trained on and measured; give --val-data")
        parts.append(
            (
                ReferSubset(source, left, f"{source.name}, less those held out"),
                ReferSubset(source, taken, f"{source.name}, held out"),
            )
        )
    return parts


def _image_groups(sources: Sequence[ReferDataset]) -> list[list[tuple[int, int]]]:
    """(data set, position) of images that are the same or nearly so, singles included. Generated scenes never are."""
    places = [[(number, index) for index in range(len(source))] for number, source in enumerate(sources)]
    drawn = [isinstance(source, ReferScenes) for source in sources]
    photos = [place for one, scenes in zip(places, drawn, strict=True) if not scenes for place in one]
    looks = [look for source, scenes in zip(sources, drawn, strict=True) if not scenes for look in looks_of(source)]
    groups = [[photos[index] for index in group] for group in groups_of(looks)]
    return groups + [[place] for one, scenes in zip(places, drawn, strict=True) if scenes for place in one]


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
    if isinstance(dataset, ReferMix):
        return " + ".join(fingerprint(part) for part in dataset.datasets)
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
