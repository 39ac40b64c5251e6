"""Label Studio's own run lengths for masks drawn with its brush (rle-pack): bits of pixels' red, green, blue, alpha.

Bits of the head: 32 for the count of values, 5 for the size of a value, 4 times 4 for the sizes of counts, each size
less one. Then blocks: 1 bit says whether one value is repeated, 2 bits which size the count has, then the count less
one, and the value or all values. A pixel belongs to the mask where its alpha is not 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

_CHANNELS = 4
_COUNT_BITS = (3, 4, 8, 16)  # as Label Studio writes them
_MAX_RUN = 1 << 16


def decode_brush(values: Any, size_hw: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The mask that some bytes, as a list of numbers, describe.

    Raises:
        ValueError: they are no such bytes, or describe another number of pixels.
    """
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 256 for value in values):
        raise ValueError("has a brush that is no list of bytes")
    height, width = size_hw
    bits = _Bits(bytes(values))
    count, word = bits.read(32), bits.read(5) + 1
    if count != height * width * _CHANNELS:
        raise ValueError(f"has a brush of {count // _CHANNELS} pixels, its image has {width}x{height}")
    sizes = [bits.read(4) + 1 for _ in range(4)]
    found = np.zeros(height * width, np.uint8)  # the alpha of each pixel, every fourth value
    at = 0
    while at < count:
        repeated, length = bits.read(1), bits.read(sizes[bits.read(2)]) + 1
        end = min(at + length, count)
        # Pixel p has its alpha at value 4p + 3.
        if repeated:
            found[at // _CHANNELS : end // _CHANNELS] = bits.read(word) > 0
        else:
            values = [bits.read(word) > 0 for _ in range(end - at)]
            found[at // _CHANNELS : end // _CHANNELS] = values[(_CHANNELS - 1 - at) % _CHANNELS :: _CHANNELS]
        at = end
    return found.reshape(height, width)


def encode_brush(bitmap: UInt8[np.ndarray, "h w"]) -> list[int]:
    """A mask as Label Studio's bytes."""
    flat = np.repeat(bitmap.reshape(-1) > 0, _CHANNELS)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    parts = [f"{len(flat):032b}{7:05b}", *(f"{bits - 1:04b}" for bits in _COUNT_BITS)]  # 7: values of 8 bits
    for start, end in pairwise(edges):
        value = "1" * 8 if flat[start] else "0" * 8
        for length in _runs(end - start):
            size = next(i for i, bits in enumerate(_COUNT_BITS) if length <= 1 << bits)
            parts.append(f"1{size:02b}{length - 1:0{_COUNT_BITS[size]}b}{value}")
    text = "".join(parts)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _runs(length: int) -> Iterator[int]:
    while length > 0:
        yield min(length, _MAX_RUN)
        length -= _MAX_RUN


class _Bits:
    """Numbers of up to 32 bits, one after the other."""

    def __init__(self, data: Sequence[int] | bytes) -> None:
        self._data = bytes(data) + bytes(8)  # so that a window may reach beyond the end
        self._end = 8 * len(data)
        self._at = 0

    def read(self, bits: int) -> int:
        if self._at + bits > self._end:
            raise ValueError("has a brush that ends too early")
        first, gone = divmod(self._at, 8)
        self._at += bits
        window = int.from_bytes(self._data[first : first + 8], "big")
        return window >> (64 - gone - bits) & ((1 << bits) - 1)
