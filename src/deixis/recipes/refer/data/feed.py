"""The conversations that a segmenter trains on, in batches."""

from __future__ import annotations

from functools import partial

from deixis.batch_records import ReferBatch
from deixis.data.batching.loading import UnreadableImages
from deixis.data.refer.collate import Views, collate_questions
from deixis.data.refer.conversation import has_pixels
from deixis.data.refer.loading import QuestionDataset
from deixis.errors import DataError
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle
from deixis.options.groups import Loop
from deixis.options.refer_train import Conversations
from deixis.refer_records import ReferDataset, ReferSample
from deixis.training.feed import Feed
from deixis.video_records import Clip

QUICK_STEPS, QUICK_IMAGES = 20, 16


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
