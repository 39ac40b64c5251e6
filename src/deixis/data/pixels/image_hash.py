"""What images look like, small enough to keep for all of a data set: to find copies and near copies."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

HASH_SIDE = 8  # difference hash: 8 x 8 comparisons of neighbouring grey values, 64 bits
DECODE_SHORT_PX = 64  # a JPEG decoded at an eighth of its size looks the same
_BAND_BITS = 8
_NEAR_BITS = 7  # difference hashes this close share at least one of their eight bands, so only bands need be compared
_THUMB_SIDE = 32
_NEAR_GREY = 8.0  # mean difference of two thumbnails, of 255 grey levels


@dataclass(frozen=True)
class ImageHash:
    """What two images are compared by; about a kilobyte."""

    digest: bytes
    difference_hash: int
    thumb: UInt8[np.ndarray, "side side"]


def hash_image(pixels: UInt8[np.ndarray, "h w 3"], content: bytes | None) -> ImageHash:
    """The hash of an image from its pixels (perhaps decoded smaller) and its file's content, if it is a file."""
    if content is None:
        content = repr(pixels.shape).encode() + pixels.tobytes()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    # [8, 9]: eight differences in a row
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)  # [64]
    thumb = np.asarray(cv2.resize(grey, (_THUMB_SIDE, _THUMB_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return ImageHash(hashlib.sha256(content).digest(), int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb)


def duplicate_pairs(hashes: Sequence[ImageHash]) -> Iterator[tuple[int, int]]:
    """Positions of two images that are the same, or nearly so; some pairs come more than once.

    Images with the same bytes are paired with the first of them only. Two others are near copies when their
    difference hashes (64 bits) differ in seven bits at most and their grey thumbnails by 8 levels of 255 in the mean.
    The second test keeps plain pictures apart, whose difference hashes say little.
    """
    first_of: dict[bytes, int] = {}
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, hashed in enumerate(hashes):
        if hashed.digest in first_of:  # a copy is compared with the others by its first
            yield first_of[hashed.digest], index
            continue
        first_of[hashed.digest] = index
        for shift in range(0, HASH_SIDE**2, _BAND_BITS):
            bands[shift, hashed.difference_hash >> shift & (2**_BAND_BITS - 1)].append(index)
    if not hashes:
        return
    thumbs = np.stack([hashed.thumb for hashed in hashes]).astype(np.int16)
    difference_hashes = np.array([hashed.difference_hash for hashed in hashes], dtype=np.uint64)
    for members in bands.values():
        for place, index in enumerate(members[:-1]):
            others = np.array(members[place + 1 :])
            others = others[np.bitwise_count(difference_hashes[others] ^ difference_hashes[index]) <= _NEAR_BITS]
            if len(others) == 0:
                continue
            near = np.abs(thumbs[others] - thumbs[index]).mean((1, 2)) <= _NEAR_GREY  # [others, side, side] to [others]
            yield from ((index, int(other)) for other in others[near])


def groups_of(hashes: Sequence[ImageHash]) -> list[list[int]]:
    """Positions of images that are the same or nearly so, one list per group, singles included, in order."""
    parents = list(range(len(hashes)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for first, second in duplicate_pairs(hashes):
        parents[max(root(first), root(second))] = min(root(first), root(second))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(hashes)):
        groups[root(index)].append(index)
    return list(groups.values())
