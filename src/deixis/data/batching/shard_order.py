"""The order of an epoch over shards, in memory that does not grow with the data set.

The shards are put in a random order and images are shuffled among `WINDOW` neighbouring shards, so any part of the
order is found without the rest of it, and disks read a few files at a time. All of it is a function of (seed, epoch).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

WINDOW = 16  # shards
BUCKET_BATCHES = 16  # aspect ratios are sorted within this many batches, which keeps the order random enough


@runtime_checkable
class Order(Protocol):
    """The positions of an epoch's samples, by slices; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Int[np.ndarray, " n"]: ...


@runtime_checkable
class Ratios(Protocol):
    """Width over height of samples, by their positions; an array is one."""

    def __getitem__(self, positions: Int[np.ndarray, " n"], /) -> Float[np.ndarray, " n"]: ...


class _Windows:
    """An order made of windows, each found by itself; the last few are kept."""

    def __init__(self, ends: Int[np.ndarray, " windows"]) -> None:
        self._ends = ends
        self._kept = lru_cache(maxsize=2)(self._window)  # a step may begin in one window and end in the next

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice, /) -> Int[np.ndarray, " n"]:
        start, stop, _ = part.indices(len(self))
        found = []
        while start < stop:
            window = int(np.searchsorted(self._ends, start, side="right"))  # the one that `start` lies in
            first = int(self._ends[window - 1]) if window else 0
            found.append(self._kept(window)[start - first : stop - first])
            start = min(stop, int(self._ends[window]))
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _window(self, window: int) -> Int[np.ndarray, " n"]:
        raise NotImplementedError


class ShardOrder(_Windows):
    """All samples once.

    Args:
        shard_sizes: samples of each shard, which lie one after another.
    """

    def __init__(self, shard_sizes: Int[np.ndarray, " shards"], seed: int, epoch: int) -> None:
        self._seeds = seed, epoch
        self._sizes = shard_sizes
        self._starts = np.cumsum(shard_sizes) - shard_sizes
        self._shards = _generator(seed, epoch).permutation(len(shard_sizes))
        ends = np.cumsum(shard_sizes[self._shards])
        super().__init__(np.append(ends[WINDOW - 1 : -1 : WINDOW], ends[-1]))  # the last window may have fewer shards

    def _window(self, window: int) -> Int[np.ndarray, " n"]:
        shards = self._shards[window * WINDOW : (window + 1) * WINDOW]
        together = np.concatenate([np.arange(self._starts[s], self._starts[s] + self._sizes[s]) for s in shards])
        # 1 here and 2 in `ShapeOrder`: windows of both orders draw apart. Window 0 has the stream of sample 1, or 2, as
        # `epochs` explains.
        return _generator(*self._seeds, 1, window).permutation(together)


class ShapeOrder(_Windows):
    """An order whose whole steps hold images of similar shape; the incomplete last step stays last.

    Args:
        ratios: width over height of each sample.
        step: samples of one step of all processes.
    """

    def __init__(self, order: Order, ratios: Ratios, step: int, seed: int, epoch: int) -> None:
        self._order, self._ratios, self._step, self._seeds = order, ratios, step, (seed, epoch)
        full = len(order) // step * step
        # every `BUCKET_BATCHES` steps a window, the last one shorter; then one for the incomplete step
        ends = np.minimum(np.arange(1, -(-full // (step * BUCKET_BATCHES)) + 1) * step * BUCKET_BATCHES, full)
        super().__init__(np.append(ends, len(order)) if full < len(order) else ends)

    def _window(self, window: int) -> Int[np.ndarray, " n"]:
        first = int(self._ends[window - 1]) if window else 0
        found = self._order[first : int(self._ends[window])]
        if len(found) % self._step:  # the incomplete last step
            return found
        # [steps, samples of a step]: neighbours in shape share a step
        steps = found[np.argsort(self._ratios[found], kind="stable")].reshape(-1, self._step)
        return _generator(*self._seeds, 2, window).permutation(steps, axis=0).reshape(-1)


class Begun:
    """The first places of an order, which begins again after its end."""

    def __init__(self, order: Order, length: int) -> None:
        self._order, self._length = order, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice, /) -> Int[np.ndarray, " n"]:
        start, stop, _ = part.indices(self._length)
        found = [self._order[start : min(stop, len(self._order))]]
        for place in range(max(start, len(self._order)), stop):
            found.append(self._order[place % len(self._order) : place % len(self._order) + 1])
        return np.concatenate(found)


def _generator(*seeds: Any) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
