"""Batches of conversations with a tokenizer of one token per word, for tests of how they are built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from deixis.batch_records import ReferBatch
from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.loading import load_batches
from deixis.data.refer.collate import Views, collate_questions
from deixis.data.refer.conversation import SEG, Turn
from deixis.data.refer.loading import QuestionDataset
from deixis.data.scenes.refer_scenes import refer_scenes

SEG_ID = 7


def encode(
    turns: Sequence[Turn], tiles: int, regions: Sequence[int] = (), frames: int = 1
) -> tuple[list[int], list[int]]:
    """One token per word, `[SEG]` is 7, four placeholders (9) per tile, then those of the regions."""
    placeholders = 4 * tiles * frames + sum(regions)
    ids, labels = [9] * placeholders, [-100] * placeholders
    for turn in turns:
        ids += [1] * len(turn.question.split())
        labels += [-100] * len(turn.question.split())
        answer = [SEG_ID if SEG in word else 2 for word in turn.answer.split()]
        ids += answer
        labels += answer
    return ids, labels


def batches(share: float, workers: int = 0, count: int = 8) -> list[ReferBatch]:
    data = QuestionDataset(refer_scenes("refer_train", count, 3), max_masks=2, seed=11, caption_share=share)
    views = Views(tile_px=32, max_tiles=1, sam_px=64, mask_px=16, tile_side=2)
    collate = partial(collate_questions, encode=encode, views=views, pad_token_id=0, max_tokens=300)
    return list(load_batches(data, epoch_batches(count, 4, epoch=1, seed=11), collate, workers))
