"""Training items of the segmenter: decoded images or clips, each with a conversation about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from deixis.data.batching.epochs import SEEDS, EpochDataset, Key
from deixis.data.pixels.images import load_image
from deixis.data.refer.clip_frames import clip_question
from deixis.data.refer.collate import Question
from deixis.data.refer.conversation import DETAIL_QUESTIONS, caption_turns, chat_turns, training_turns
from deixis.errors import DataError, OptionError
from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


class QuestionDataset(EpochDataset):
    """Decoded samples with a conversation drawn for the epoch, by (epoch, index).

    Args:
        max_masks: maximum number of masks in a conversation.
        seed: not negative.
        behaviour: which answers the model learns to give; see `conversation.ANSWERS`.
        caption_share: share of the conversations that ask for words for masks in place of masks for words.
        clip_frames: maximum number of frames of a clip in a conversation.
    """

    def __init__(
        self,
        dataset: ReferDataset | ClipDataset,
        max_masks: int,
        seed: int,
        behaviour: str = "deixis",
        caption_share: float = 0.0,
        clip_frames: int = 5,
    ) -> None:
        super().__init__(dataset, seed)
        if not 0 <= caption_share <= 1:
            raise OptionError(f"caption_share must be between 0 and 1, got {caption_share}")
        self.max_masks = max_masks
        self.behaviour = behaviour
        self.caption_share = caption_share
        self.clip_frames = clip_frames

    def __getitem__(self, key: Key) -> Question:
        """The question of an epoch.

        Raises:
            DataError: its image or clip cannot be used; the message names the file.
        """
        sample, rng = self.drawn(key)
        question = self._question(sample, rng)
        return replace(question, seed=int(rng.integers(SEEDS)))  # of the points at which its masks are compared

    def _question(self, drawn: ReferSample | Clip, rng: np.random.Generator) -> Question:
        if isinstance(drawn, Clip):
            return clip_question(drawn, self.clip_frames, self.max_masks, rng, self.behaviour)
        sample = decoded(drawn)
        if sample.chat:
            turns, asked = chat_turns(sample.chat, sample.expressions, rng)
            return Question(sample, tuple(turns), tuple(asked), sample.regions)
        if sample.described:
            described, regions = caption_turns(sample.expressions, self.max_masks, rng, DETAIL_QUESTIONS)
            return Question(sample, tuple(described), (), regions)
        if self.caption_share and rng.random() < self.caption_share:
            described, regions = caption_turns(sample.expressions, self.max_masks, rng)
            if regions:  # where there is no mask to describe, masks are asked for
                return Question(sample, tuple(described), (), regions)
        turns, asked = training_turns(sample.expressions, self.max_masks, rng, self.behaviour)
        return Question(sample, tuple(turns), tuple(asked))


def pictured(sample: ReferSample) -> ReferSample:
    """`decoded`, for what needs an image.

    Raises:
        DataError: as `decoded`; or it is a conversation without an image, or about a video.
    """
    if not isinstance(sample, ReferSample) or not sample.has_image:
        raise DataError(
            f"{sample.source}: is a conversation without an image, which deixis refer train reads; leave it out"
        )
    return decoded(sample)


def decoded(sample: ReferSample) -> ReferSample:
    """The sample with its pixels.

    Raises:
        DataError: the image cannot be read, or its size is not the annotated one.
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
