"""Splitting a data set so that no image, nor a near copy of it, stands on both sides.

A validation image whose twin was trained on measures memory, not detection.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from deixis.data.images import load_image
from deixis.data.subset import Subset
from deixis.errors import DataError
from deixis.records import Dataset, Sample

_HASH_SIDE = 8  # difference hash: 8 x 8 comparisons of neighbouring grey values, 64 bits
_BAND_BITS = 8
_NEAR_BITS = 7  # hashes this close share at least one of their eight bands, so only bands need be compared
_THUMB_SIDE = 32
_NEAR_GREY = 8.0  # mean difference of two thumbnails, of 255 grey levels
_DECODE_SHORT_PX = 64
_THREADS = 4


@dataclass(frozen=True)
class _Look:
    """What two images are compared by."""

    digest: bytes
    difference_hash: int
    thumb: UInt8[np.ndarray, "side side"]


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


def duplicate_groups(dataset: Dataset) -> list[list[int]]:
    """Positions of images that are the same or nearly so, one list a group, singles included, in order.

    Two images are near copies when their difference hashes (64 bits) differ in seven bits at most and their grey
    thumbnails by 8 levels of 255 in the mean. The second test keeps plain pictures apart, whose hashes say little.

    Raises:
        DataError: an image that cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(lambda index: _look(dataset[index]), range(len(dataset))))
    parents = list(range(len(looks)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for first, second in _duplicate_pairs(looks):
        parents[max(root(first), root(second))] = min(root(first), root(second))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(looks)):
        groups[root(index)].append(index)
    return list(groups.values())


def _look(sample: Sample) -> _Look:
    if isinstance(sample.image, np.ndarray):
        pixels = sample.image
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    else:
        pixels = load_image(sample.image, min_short_px=_DECODE_SHORT_PX)
        digest = hashlib.sha256(sample.image.read_bytes()).digest()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE + 1, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    thumb = np.asarray(cv2.resize(grey, (_THUMB_SIDE, _THUMB_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return _Look(digest, int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb)


def _duplicate_pairs(looks: Sequence[_Look]) -> Iterator[tuple[int, int]]:
    first_of: dict[bytes, int] = {}
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, look in enumerate(looks):
        if look.digest in first_of:
            yield first_of[look.digest], index
            continue
        first_of[look.digest] = index
        for shift in range(0, _HASH_SIDE**2, _BAND_BITS):
            bands[shift, look.difference_hash >> shift & (2**_BAND_BITS - 1)].append(index)
    thumbs = np.stack([look.thumb for look in looks]).astype(np.int16)
    hashes = np.array([look.difference_hash for look in looks], dtype=np.uint64)
    for members in bands.values():
        for place, index in enumerate(members[:-1]):
            others = np.array(members[place + 1 :])
            others = others[np.bitwise_count(hashes[others] ^ hashes[index]) <= _NEAR_BITS]
            if len(others) == 0:
                continue
            near = np.abs(thumbs[others] - thumbs[index]).mean((1, 2)) <= _NEAR_GREY
            yield from ((index, int(other)) for other in others[near])
