"""Conversations in a segmenter's data: which sources only talk, and what of them is held out."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.refer_formats import read_refer
from deixis.data.scenes.clip_scenes import ClipScenes
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.options.refer_train import ReferForgetting
from deixis.recipes.refer.data.splits import Source
from deixis.refer_records import ReferSample
from deixis.training.validation import spread_evenly
from deixis.video_records import Clip

_LOOKED_AT = 20  # samples, to see what a data set asks for
_HELD_OUT, _MIN_CHATS = 0.05, 20  # of fewer conversations none is held out


def read_source(path: str, images: Path | None, form: str | None) -> Source:
    """One data set of images, or of clips, by its path; see `read_refer` and `read_clips`.

    Raises:
        DataError: it cannot be read.
    """
    return read_clips(path, images, form) if are_clips(path, form) else read_refer(path, images, form)


def only_talks(source: Source, described: bool = True) -> bool:
    """Whether a data set has conversations and descriptions, and never asks for a mask.

    Args:
        described: descriptions of masks count as talk; they can be measured as phrases all the same.
    """
    if isinstance(source, ReferScenes | ClipScenes | Joined):
        return False
    samples: list[ReferSample | Clip] = [source[index] for index in range(min(_LOOKED_AT, len(source)))]
    return any(_talks(sample, described) for sample in samples) and not any(
        _asks(sample, described) for sample in samples
    )


def _talks(sample: ReferSample | Clip, described: bool) -> bool:
    return bool(sample.chat) or (described and isinstance(sample, ReferSample) and sample.described)


def _asks(sample: ReferSample | Clip, described: bool) -> bool:
    if described and isinstance(sample, ReferSample) and sample.described:
        return False
    return any(exchange.grounded for exchange in sample.chat) or any(e.texts for e in sample.expressions)


def read_chat(forgetting: ReferForgetting) -> Source | None:
    """The conversations of --forgetting-data, --forgetting-max-images at most, spread evenly; None if none are named.

    Raises:
        DataError: they cannot be read.
    """
    if not forgetting.forgetting_data:
        return None
    source = read_source(forgetting.forgetting_data, forgetting.forgetting_images, None)
    chosen = spread_evenly(len(source), forgetting.forgetting_max_images)
    return cast(Source, Subset(source, tuple(chosen), source.name))


def held_out_chat(source: Source, most: int) -> tuple[Source, Source | None]:
    """(what is left for training, what is held out) of conversations, spread evenly; of few nothing is held out."""
    if len(source) < _MIN_CHATS:
        return source, None
    # spread: files are often sorted by subject
    held = spread_evenly(len(source), min(most, round(_HELD_OUT * len(source))))
    left = np.setdiff1d(np.arange(len(source)), held)
    kept = Subset(source, tuple(left.tolist()), f"{source.name}, less those held out")
    return cast(Source, kept), cast(Source, Subset(source, tuple(held), f"{source.name}, held out"))
