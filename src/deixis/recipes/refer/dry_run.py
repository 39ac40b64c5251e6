"""What a dry run of the segmenter reads, so that it refuses what the run would refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from deixis.data.refer.loading import decoded
from deixis.progress_bar import ProgressBar
from deixis.recipes.run.data import RunData
from deixis.refer_records import ReferDataset
from deixis.training.feed import Feed


def read_everything(feed: Feed[Any], data: RunData[ReferDataset], max_val_images: int | None) -> None:
    """Every training sample as a step would be given it, every picture that is measured.

    Raises:
        DataError: a picture or clip that cannot be used, a conversation over --max-tokens.
    """
    with ProgressBar("reading training data") as progress:
        _each(len(feed.dataset), partial(_collated, feed), progress)
    for name, part in (("validation data", data.validation), ("test data", data.test)):
        if part is not None:
            with ProgressBar(f"reading {name}") as progress:
                _each(min(len(part), max_val_images or len(part)), partial(_decoded, part), progress)


def _decoded(part: ReferDataset, index: int) -> object:
    return decoded(part[index])


def _collated(feed: Feed[Any], index: int) -> object:
    return feed.collate([feed.dataset[0, index]])


def _each(count: int, read: Callable[[int], object], progress: Callable[[int, int], None]) -> None:
    for index in range(count):
        read(index)
        progress(index + 1, count)
