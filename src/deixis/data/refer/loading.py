"""Training batches of the segmenter: a function of (seed, epoch, sample index) and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from deixis.data.batching.loading import SEEDS, Key, Loader, load_batches, sample_generator
from deixis.data.batching.unreadable import UnreadableImages
from deixis.data.pixels.images import load_image
from deixis.data.refer.clip_frames import clip_question
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import ConversationEncoder, caption_turns, training_turns
from deixis.data.sets.refer_mixing import ReferMix
from deixis.errors import DataError, OptionError
from deixis.refer_records import ReferBatch, ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


class QuestionDataset(torch.utils.data.Dataset):
    """Decoded samples with a conversation drawn for the epoch, by (epoch, index).

    Args:
        most_masks: masks in a conversation at most.
        seed: not negative.
        behaviour: which answers the model learns to give; see `conversation.ANSWERS`.
        caption_share: share of the conversations that ask for words for masks in place of masks for words.
        clip_frames: frames of a clip in a conversation at most.
    """

    def __init__(
        self,
        dataset: ReferDataset | ClipDataset,
        most_masks: int,
        seed: int,
        behaviour: str = "deixis",
        caption_share: float = 0.0,
        clip_frames: int = 5,
    ) -> None:
        if seed < 0:
            raise OptionError(f"seed must be 0 or more, got {seed}")
        if not 0 <= caption_share <= 1:
            raise OptionError(f"caption_share must be between 0 and 1, got {caption_share}")
        self.dataset = dataset
        self.most_masks = most_masks
        self.seed = seed
        self.behaviour = behaviour
        self.caption_share = caption_share
        self.clip_frames = clip_frames

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Question:
        """The question of an epoch.

        Raises:
            DataError: its image or clip cannot be used; the message names the file.
        """
        epoch, index = key
        rng = sample_generator(self.seed, epoch, index)
        question = self._question(_drawn(self.dataset, epoch, index), rng)
        return replace(question, seed=int(rng.integers(SEEDS)))

    def _question(self, drawn: ReferSample | Clip, rng: np.random.Generator) -> Question:
        if isinstance(drawn, Clip):
            return clip_question(drawn, self.clip_frames, self.most_masks, rng, self.behaviour)
        sample = decoded(drawn)
        if self.caption_share and rng.random() < self.caption_share:
            described, regions = caption_turns(sample.expressions, self.most_masks, rng)
            if regions:  # where there is no mask to describe, masks are asked for
                return Question(sample, tuple(described), (), regions)
        turns, asked = training_turns(sample.expressions, self.most_masks, rng, self.behaviour)
        return Question(sample, tuple(turns), tuple(asked))


def _drawn(dataset: ReferDataset | ClipDataset, epoch: int, index: int) -> ReferSample | Clip:
    """A mix shows other samples in each epoch, any other data set the same."""
    return dataset.at(epoch, index) if isinstance(dataset, ReferMix) else dataset[index]


def decoded(sample: ReferSample) -> ReferSample:
    """The sample with its pixels.

    Raises:
        DataError: the image cannot be read, or has another size than its annotation says.
    """
    if not isinstance(sample.image, Path):
        return sample
    pixels = load_image(sample.image)
    if pixels.shape[:2] != sample.size_hw:
        raise DataError(
            f"{sample.source}: {sample.image} is {pixels.shape[:2]}, its annotation says {sample.size_hw} "
            "(height, width); correct the annotation"
        )
    return sample.evolve(image=pixels)


def make_refer_loader(
    dataset: QuestionDataset,
    batches: Iterable[list[Key]],
    encode: ConversationEncoder,
    views: Views,
    pad_token_id: int,
    most_tokens: int,
    workers: int = 0,
    pin_memory: bool = False,
    unreadable: UnreadableImages | None = None,
) -> Loader:
    """A loader of `ReferBatch`es; see `load_batches`."""
    collate_items = partial(_collate_items, encode, views, pad_token_id, most_tokens)
    return load_batches(dataset, batches, collate_items, workers, pin_memory, unreadable)


def _collate_items(
    encode: ConversationEncoder, views: Views, pad_token_id: int, most_tokens: int, questions: Sequence[Question]
) -> ReferBatch:
    return collate_questions(questions, encode, views, pad_token_id, most_tokens)
