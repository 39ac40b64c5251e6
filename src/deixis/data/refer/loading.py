"""Training items of the segmenter: decoded images or clips, each with a conversation about it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.batching.epochs import SEEDS, EpochDataset, Key
from deixis.data.pixels.images import load_image
from deixis.data.refer.collate import Question
from deixis.data.refer.conversation import DETAIL_QUESTIONS, caption_turns, chat_turns, training_turns
from deixis.errors import DataError, OptionError
from deixis.refer_records import Expression, ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset, ClipExpression


def sample_frames(
    clip: Clip, count: int, rng: np.random.Generator, expressions: Sequence[ClipExpression] = ()
) -> list[int]:
    """Some labelled frames, ascending, spread over the clip: one from each of `count` equal parts, drawn at random.

    Args:
        count: how many; all labelled frames where there are not more.
        expressions: what will be asked. Where the object of one of them is ever visible, a frame shows it; if several
            compete for one part of the clip, at least the last of them is shown.

    Returns:
        Positions in `clip.labelled`.

    Raises:
        DataError: the clip has no labels.
    """
    labels = len(clip.labelled)
    if not labels:
        raise DataError(f"{clip.source}: has no labelled frames to train on")
    count = min(count, labels)
    edges = [part * labels // count for part in range(count + 1)]  # `count` parts, equal up to one label
    chosen = [int(rng.integers(start, end)) for start, end in pairwise(edges)]
    kept: set[int] = set()  # parts whose frame shows what was asked for
    for expression in expressions:
        seen = [label for label in range(labels) if _visible(clip, expression, label)]
        showing = [part for part, label in enumerate(chosen) if label in seen]
        # an object that no drawn frame shows would be taught as absent, although it is in the clip
        if seen and not showing:
            # not at the expense of an expression shown already
            free = [label for label in seen if bisect_right(edges, label) - 1 not in kept] or seen
            # `bisect_right(edges, label) - 1` is the part that a label lies in.
            label = free[int(rng.integers(len(free)))]
            showing = [bisect_right(edges, label) - 1]
            chosen[showing[0]] = label
        kept.update(showing[:1])
    return chosen


def clip_question(
    clip: Clip, frames: int, max_masks: int, rng: np.random.Generator, behaviour: str = "deixis"
) -> Question:
    """A conversation about some frames of a clip, decoded, in which every `[SEG]` is a mask in each of them.

    Args:
        frames: maximum number; see `sample_frames`.
        max_masks: maximum number of expressions asked about.
        behaviour: see `conversation.training_turns`.

    Raises:
        DataError: no labels, no sentences, or a frame that cannot be decoded.
    """
    if clip.chat:
        return chat_question(clip, frames, rng)
    # every `[SEG]` stands for its object in all frames, so a clip asks once, not once per frame
    turns, asked = training_turns(clip.expressions, max_masks, rng, behaviour, clip=True)
    if not asked:
        raise DataError(f"{clip.source}: has no sentences to ask about; its masks await captions")
    meant = [clip.expressions[position] for position, _ in asked]
    labels = sample_frames(clip, frames, rng, meant)
    numbers = [clip.labelled[label] for label in labels]
    samples = []
    for label, number, pixels in zip(labels, numbers, clip.frames.read(numbers), strict=True):
        expressions = tuple(Expression(e.texts, clip.masks_at(e, label), e.tags, e.expression_id) for e in meant)
        source = f"{clip.source} frame {number}"
        samples.append(ReferSample(pixels, clip.size_hw, expressions, number, source))
    said = tuple((position, text) for position, (_, text) in enumerate(asked))
    return Question(samples[0], tuple(turns), said, later=tuple(samples[1:]))


def chat_question(clip: Clip, frames: int, rng: np.random.Generator) -> Question:
    """A clip's own conversation, about one frame from each of `frames` equal parts, drawn at random.

    Raises:
        DataError: a frame that cannot be decoded.
    """
    count = min(frames, len(clip.frames))
    edges = [part * len(clip.frames) // count for part in range(count + 1)]
    numbers = [int(rng.integers(start, end)) for start, end in pairwise(edges)]
    samples = [
        ReferSample(pixels, clip.size_hw, (), number, f"{clip.source} frame {number}")
        for number, pixels in zip(numbers, clip.frames.read(numbers), strict=True)
    ]
    turns, _ = chat_turns(clip.chat, (), rng)
    return Question(samples[0], tuple(turns), (), later=tuple(samples[1:]))


def _visible(clip: Clip, expression: ClipExpression, label: int) -> bool:
    return any(coco_mask.area(mask) for mask in clip.masks_at(expression, label))


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
