"""Which frames of a clip training shows, and a question about them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.refer.collate import Question
from deixis.data.refer.conversation import chat_turns, training_turns
from deixis.errors import DataError
from deixis.refer_records import Expression, ReferSample
from deixis.video_records import Clip, ClipExpression


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
