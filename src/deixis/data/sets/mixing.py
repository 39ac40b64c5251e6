"""Several data sets as one, each with its own vocabulary, and how often each of them is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from deixis.errors import OptionError
from deixis.records import Dataset, Sample, Vocabulary


class Joined:
    """Data sets one after another. Every sample keeps its own vocabulary; the whole has all names, each once."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        assert parts, "join at least one data set"
        self.parts = tuple(parts)
        self.name = " + ".join(str(getattr(part, "name", "data")) for part in parts)
        self.vocabulary = Vocabulary(tuple(dict.fromkeys(name for part in parts for name in part.vocabulary.names)))
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part][index - int(self._ends[part]) + len(self.parts[part])]


@dataclass(frozen=True)
class Mixture:
    """Which samples an epoch shows, when data sets are drawn by weight.

    Each data set has a fixed number of the epoch's places. Its samples fill them in shuffled passes that go on from one
    epoch to the next, so none comes again before all the others of its data set have come. All of it is a function of
    (seed, epoch): nothing has to be remembered to resume.

    Attributes:
        sizes: samples of each data set.
        counts: places of each in an epoch.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return sum(self.counts)

    def rows(self, epoch: int) -> Int[np.ndarray, " places"]:
        """For each place of an epoch, the position of its sample in the data sets joined."""
        starts = np.cumsum((0, *self.sizes))
        return np.concatenate(
            [starts[part] + self._walk(part, epoch * count, count) for part, count in enumerate(self.counts)]
        )

    def _walk(self, part: int, first: int, count: int) -> Int[np.ndarray, " count"]:
        """Steps `first` to `first + count` of a data set's endless walk."""
        found = []
        while count > 0:
            turn, place = divmod(first, self.sizes[part])
            found.append(shuffled_pass(self.sizes[part], self.seed, part, turn)[place : place + count])
            first, count = first + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)


def make_mixture(sizes: Sequence[int], weights: Sequence[float], length: int | None, seed: int) -> Mixture | None:
    """How data sets are mixed; None where every sample simply comes once an epoch.

    Args:
        sizes: samples of each data set.
        weights: shares of an epoch's places, one a data set; none for shares by size.
        length: places of an epoch; the samples of all data sets together if not given.

    Raises:
        OptionError: a weight that is missing or not above 0, or a data set that no place falls to.

    >>> make_mixture((1000, 10), (1, 1), None, 0).counts
    (505, 505)
    """
    if not weights and length is None:
        return None
    shares = np.asarray(weights or sizes, dtype=np.float64)
    if len(shares) != len(sizes) or not (np.isfinite(shares) & (shares > 0)).all():
        raise OptionError(
            f"--data-weights: got {list(weights)} for {len(sizes)} data sets, wanted a number above 0 for each"
        )
    places = sum(sizes) if length is None else length
    counts = apportion(shares, places)
    if min(counts) < 1:
        raise OptionError(
            f"--data-weights: data set {counts.index(min(counts)) + 1} has no place in an epoch of {places} images; "
            "give it more weight, or --epoch-length a larger number"
        )
    return Mixture(tuple(sizes), counts, seed)


def apportion(weights: Sequence[float] | Float[np.ndarray, " parts"], total: int) -> tuple[int, ...]:
    """Whole numbers in the ratio of the weights that add up to a total: the largest remainders are rounded up.

    >>> apportion([1, 1, 2], 6)
    (2, 1, 3)
    """
    shares = np.asarray(weights, np.float64)
    exact = shares / shares.sum() * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return tuple(counts.tolist())


@lru_cache(maxsize=8)
def shuffled_pass(size: int, seed: int, part: int, turn: int) -> Int[np.ndarray, " size"]:
    """The order in which a data set, the `part`-th of a mix, is gone through in its n-th turn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, part, turn]))).permutation(size)
