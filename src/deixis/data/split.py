"""Splitting a data set so that no image, nor a near copy of it, stands on both sides.

A validation image whose twin was trained on measures memory, not detection.
"""

from __future__ import annotations

import numpy as np

from deixis.data.images import load_image
from deixis.data.looks import DECODE_SHORT_PX, Look, groups_of, look_at
from deixis.data.parallel import in_order
from deixis.data.subset import Subset
from deixis.errors import DataError
from deixis.records import Dataset, Sample

THREADS = 4


def split_by_group(dataset: Dataset, fraction: float = 0.8, seed: int = 0) -> tuple[Subset, Subset]:
    """(train, validation), with byte-identical and nearly identical images on the same side.

    Whole groups of duplicates are drawn in an order fixed by `seed` until train holds `fraction` of the images, as
    nearly as the groups allow. Both keep the data set's order and its whole vocabulary.

    Raises:
        DataError: a fraction that is not between 0 and 1, an image that cannot be read, or fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the training share must be between 0 and 1, got {fraction}")
    groups = duplicate_groups(dataset)
    if len(groups) < 2:
        raise DataError(
            f"{len(dataset)} images in {len(groups)} groups of duplicates cannot be split in two; add images"
        )
    wanted = min(max(round(fraction * len(dataset)), 1), len(dataset) - 1)
    train: list[int] = []
    validation: list[int] = []
    for position in np.random.Generator(np.random.PCG64(seed)).permutation(len(groups)):
        group = groups[position]
        (train if len(train) + len(group) <= wanted else validation).extend(group)
    if not train:  # every group is larger than the share asked for: the smallest one has to do
        smallest = min(groups, key=len)
        train = list(smallest)
        validation = [index for index in range(len(dataset)) if index not in train]
    name = getattr(dataset, "name", "data")
    return (
        Subset(dataset, tuple(sorted(train)), f"{name} (train)"),
        Subset(dataset, tuple(sorted(validation)), f"{name} (validation)"),
    )


def duplicate_groups(dataset: Dataset, workers: int = THREADS) -> list[list[int]]:
    """Positions of images that are the same or nearly so, one list a group, singles included, in order.

    See `deixis.data.looks.duplicate_pairs` for what is nearly the same.

    Raises:
        DataError: an image that cannot be read.
    """
    return groups_of(list(in_order(lambda index: _look(dataset[index]), range(len(dataset)), workers)))


def _look(sample: Sample) -> Look:
    if isinstance(sample.image, np.ndarray):
        return look_at(sample.image, None)
    return look_at(load_image(sample.image, min_short_px=DECODE_SHORT_PX), sample.image.read_bytes())
