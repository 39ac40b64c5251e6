"""What a segmenter run reads: training and validation data, and the conversations made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from deixis.data.batching.unreadable import UnreadableImages
from deixis.data.pixels.image_hash import groups_of
from deixis.data.refer.collate import Views, collate_questions
from deixis.data.refer.conversation import has_pixels
from deixis.data.refer.loading import QuestionDataset
from deixis.data.refer_formats.chat.llava import Chats
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.mixing import Joined
from deixis.data.sets.split import hold_out, image_hashes
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle
from deixis.options.groups import Loop
from deixis.options.refer_train import Conversations
from deixis.recipes.run.data import SPLIT_SEED
from deixis.refer_records import Expression, ReferBatch, ReferDataset, ReferSample
from deixis.training.feed import Feed
from deixis.video_records import Clip, ClipDataset

VALIDATION_SHARE = 0.1
QUICK_STEPS, QUICK_IMAGES = 20, 16

Source = ReferDataset | ClipDataset
"""Images or clips."""


def held_out(sources: Sequence[Source], shares: Sequence[float] = (VALIDATION_SHARE,)) -> list[tuple[Source, ...]]:
    """(training, validation, ...) of each data set: the shares of its images, at least one each, are held out.

    An image that is held out of one data set is trained on in none, nor is a copy or near copy of it: RefCOCO and
    RefCOCO+ ask about the same photographs. Groups of copies stay together, so a little more may be held out. Clips
    are held out whole, and are not compared.

    Raises:
        DataError: a data set of which nothing would be left to train on; an image cannot be read.
    """
    names = [source.name for source in sources]
    found = hold_out(_image_groups(sources), names, [len(source) for source in sources], shares, SPLIT_SEED)
    roles = ("less those held out", "held out", "held out for test")
    return [
        tuple(
            subset(source, positions, f"{source.name}, {role}") for positions, role in zip(parts, roles, strict=False)
        )
        for source, parts in zip(sources, found, strict=True)
    ]


def subset(source: Source, indices: tuple[int, ...], name: str) -> Source:
    """Some images, or clips, of a data set."""
    return cast(Source, Subset(source, indices, name))


def _image_groups(sources: Sequence[Source]) -> list[list[tuple[int, int]]]:
    """(data set, position) of images that are the same or nearly so, singles included. Generated scenes never are."""
    places = [[(number, index) for index in range(len(source))] for number, source in enumerate(sources)]
    drawn = [isinstance(source, ReferScenes) or isinstance(source[0], Clip) for source in sources]
    photos = [place for one, scenes in zip(places, drawn, strict=True) if not scenes for place in one]
    compared = [cast(ReferDataset, source) for source, scenes in zip(sources, drawn, strict=True) if not scenes]
    hashes = [hashed for source in compared for hashed in image_hashes(source)]
    groups = [[photos[index] for index in group] for group in groups_of(hashes)]
    return groups + [[place] for one, scenes in zip(places, drawn, strict=True) if scenes for place in one]


def training_feed(
    training: ReferDataset,
    bundle: Sa2vaBundle,
    conversations: Conversations,
    loop: Loop,
    *,
    seed: int,
    workers: int,
    max_unreadable: int,
) -> Feed[ReferBatch]:
    """Batched conversations.

    Raises:
        DataError: masks are to be described, and none of the first images has one with a phrase.
        ModelError: masks are to be described, and the model takes no regions.
    """
    tokens = ConversationTokens.of(bundle)
    if conversations.caption_share:
        bundle.require_regions()
        require_captions(training)
    return Feed(
        dataset=QuestionDataset(
            training,
            conversations.max_masks,
            seed,
            bundle.behaviour,
            conversations.caption_share,
            conversations.clip_frames,
        ),
        collate=partial(
            collate_questions,
            encode=tokens,
            views=views_of(bundle, conversations.max_tiles),
            pad_token_id=tokens.pad_token_id,
            max_tokens=conversations.max_tokens,
        ),
        batch_size=loop.batch_size,
        accumulation=loop.gradient_accumulation_steps,
        seed=seed,
        workers=workers,
        unreadable=UnreadableImages(max_unreadable),
    )


def require_captions(dataset: ReferDataset, limit: int = 200) -> None:
    """See that there is something to learn to say.

    Raises:
        DataError: no expression of the first images has both words and a mask.
    """
    for index in range(min(limit, len(dataset))):
        sample: ReferSample | Clip = dataset[index]
        if isinstance(sample, ReferSample) and any(e.texts and has_pixels(e) for e in sample.expressions):
            return
    raise DataError(
        f"{dataset.name}: --caption-share needs masks with phrases, and the first {min(limit, len(dataset))} images "
        "have none; write captions first (deixis refer cycle), or leave it out"
    )


def views_of(bundle: Sa2vaBundle, max_tiles: int) -> Views:
    """The sizes in which a segmenter sees images and regions."""
    side = round(bundle.tokens_per_tile**0.5)
    released = bundle.behaviour == "sa2va"
    outlined = bundle.model.spatial_token is not None
    return Views(
        bundle.tile_px, max_tiles, bundle.sam_px, bundle.mask_px, side, released, outlined, blocks=bundle.blocks
    )


def fingerprint(dataset: Source) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if isinstance(dataset, ReferScenes):
        return dataset.name
    if isinstance(dataset, Joined):
        return " + ".join(fingerprint(part) for part in dataset.parts)
    digest = hashlib.sha256()
    for content in _contents(dataset):
        digest.update(repr(content).encode())  # texts and masks; pixels are not read
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"


def _contents(dataset: Source) -> Iterator[tuple[object, ...]]:
    """What is annotated in each sample; conversations are taken as they stand in the file, without opening videos."""
    whole, indices = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, None)
    for index in range(len(dataset)) if indices is None else indices:
        yield whole.said(index) if isinstance(whole, Chats) else _content(whole[index])


def _content(sample: ReferSample | Clip) -> tuple[object, ...]:
    """What is annotated, and of what."""
    texts: list[object] = [expression.texts for expression in sample.expressions]
    if sample.chat:
        texts.append(sample.chat)
    if isinstance(sample, Clip):
        meant = [expression.masklets for expression in sample.expressions]
        tracks = [[mask and mask["counts"] for mask in masklet.masks_rle] for masklet in sample.masklets]
        return sample.video_id, sample.size_hw, sample.labelled, texts, meant, tracks
    image = sample.image.name if isinstance(sample.image, Path) else ""
    masks = [[mask["counts"] for mask in expression.masks_rle] for expression in sample.expressions]
    return image, sample.size_hw, texts, masks


def _kind(sample: ReferSample | Clip) -> str:
    if isinstance(sample, Clip):
        return "clips"
    return "images" if sample.has_image else "chats"


def facts(dataset: ReferDataset, limit: int = 500) -> str:
    """A data set in numbers, as one line."""
    count = min(len(dataset), limit)
    samples: list[ReferSample | Clip] = [dataset[index] for index in range(count)]
    phrases = sum(len(expression.texts) for sample in samples for expression in sample.expressions)
    meant = [e.masks_rle if isinstance(e, Expression) else e.masklets for sample in samples for e in sample.expressions]
    absent = sum(not objects for objects in meant)
    exchanges = sum(len(sample.chat) for sample in samples)
    kinds = {_kind(sample) for sample in samples}
    of_first = "" if count == len(dataset) else f" in the first {count:,}"
    things = f"{phrases:,} phrases, {absent:,} about nothing there{of_first}"
    talk = f", {exchanges:,} questions with answers" if exchanges else ""
    return f"{dataset.name}: {len(dataset):,} {' and '.join(sorted(kinds, reverse=True))}; {things}{talk}"
