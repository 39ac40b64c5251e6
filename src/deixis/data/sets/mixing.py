"""Several data sets as one, how often each of them is shown, and images of rare classes shown more often."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from deixis.errors import OptionError
from deixis.records import Vocabulary


def repeat_factors(shown: Sequence[Collection[int | str]], share: float) -> Float[np.ndarray, " images"]:
    """How often each image is shown per epoch, at least once, on average.

    A class that a share f of the images show has the factor max(1, sqrt(share / f)); an image has the largest of its
    classes.

    Args:
        shown: the classes in each image.
        share: classes in fewer images than this are shown more often.

    >>> repeat_factors([{"cat"}] * 15 + [{"cat", "lynx"}], 0.25)[[0, 15]]
    array([1., 2.])
    """
    counts: dict[int | str, int] = {}
    for classes in shown:
        for one in classes:
            counts[one] = counts.get(one, 0) + 1
    # Repeat factor sampling of LVIS (Gupta et al., arXiv 1908.03195).
    factors = {one: max(1.0, (share * len(shown) / count) ** 0.5) for one, count in counts.items()}
    return np.array([max((factors[one] for one in classes), default=1.0) for classes in shown])


@dataclass(frozen=True)
class Balance:
    """Which samples an epoch shows, when images have repeat factors: a function of (seed, epoch), as in `Mixture`.

    Attributes:
        ends: running sum of the factors, scaled so that the last is a whole number.
    """

    ends: Float[np.ndarray, " images"]
    seed: int

    @staticmethod
    def of(factors: Float[np.ndarray, " images"], seed: int) -> Balance:
        """From factors of 1 or more; each epoch shows an image as often as its factor says, rounded up or down."""
        ends = np.cumsum(factors)
        # The last end becomes a whole number, so that each epoch has as many places.
        ends *= np.ceil(ends[-1] - 1e-9) / ends[-1]
        return Balance(ends, seed)

    def __len__(self) -> int:
        return round(float(self.ends[-1]))

    def rows(self, epoch: int) -> Int[np.ndarray, " places"]:
        """For each place of an epoch, the position of its sample."""
        start = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch, 1]))).random()
        # an image is shown once for each of the points start, start + 1, ... in its part of the line
        points = start + np.arange(len(self))
        return np.minimum(np.searchsorted(self.ends, points, side="right"), len(self.ends) - 1)


@dataclass(frozen=True)
class Mixture:
    """Which samples an epoch shows, when data sets are drawn by weight.

    Each data set has a fixed number of the epoch's places. Its samples fill them in shuffled passes that continue from
    one epoch to the next, so no sample is repeated before all the others of its data set have been shown. All of it is
    a function of (seed, epoch): nothing has to be remembered to resume.

    Attributes:
        sizes: samples of each data set.
        counts: places of each in an epoch.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    seed: int

    @staticmethod
    def of(sizes: Sequence[int], weights: Sequence[float] = (), length: int | None = None, seed: int = 0) -> Mixture:
        """A mixture of data sets of these sizes.

        Args:
            weights: shares of an epoch's places, one for each data set; by size if not given.
            length: places of an epoch; the samples of all data sets together if not given.
            seed: not negative.

        Raises:
            OptionError: no data set or an empty one, weights that are not one number above 0 for each data set, or a
                data set without a place in the epoch.

        >>> Mixture.of((1000, 10), (1, 1)).counts
        (505, 505)
        """
        if not sizes or min(sizes) < 1:
            raise OptionError(f"mixing needs data sets that are not empty, got sizes {list(sizes)}")
        if (length is not None and length < 1) or seed < 0:
            raise OptionError(f"an epoch needs 1 sample or more and the seed must be 0 or more, got {length}, {seed}")
        shares = np.asarray(weights or sizes, dtype=np.float64)
        if len(shares) != len(sizes) or not (np.isfinite(shares) & (shares > 0)).all():
            raise OptionError(
                f"--data-weights: got {list(weights)} for {len(sizes)} data sets, expected a number above 0 for each"
            )
        places = sum(sizes) if length is None else length
        counts = apportion(shares, places)
        if min(counts) < 1:
            raise OptionError(
                f"--data-weights: data set {counts.index(min(counts)) + 1} has no place in an epoch of {places} "
                "images; give it more weight, or lengthen the epoch"
            )
        return Mixture(tuple(sizes), counts, seed)

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
            turn, place = divmod(first, self.sizes[part])  # the n-th pass, and how far into it
            found.append(shuffled_pass(self.sizes[part], self.seed, part, turn)[place : place + count])
            first, count = first + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)


class Joined:
    """Data sets as one: each whole, one after another, or each as often as a mixture says.

    A mixture shows other samples in each epoch (`at`); as a plain data set it is its first epoch. Every image keeps its
    own vocabulary; the whole has all names, each once.

    Args:
        parts: data sets of images, of phrases or of clips.
        vocabulary: in place of all names, numbered from 1.
        numbered: images get ids from 1 in place of their own.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        mixture: Mixture | Balance | None = None,
        vocabulary: Vocabulary | None = None,
        *,
        numbered: bool = False,
    ) -> None:
        assert parts, "join at least one data set"
        self.parts = tuple(parts)
        self.mixture = mixture
        self.numbered = numbered
        if vocabulary is not None:
            self.vocabulary = vocabulary
        self.name = " + ".join(str(getattr(part, "name", "data")) for part in parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._rows: tuple[int, Int[np.ndarray, " places"]] | None = None  # of the epoch that was last asked for

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """All names of all parts; data sets of phrases have none."""
        return Vocabulary(tuple(dict.fromkeys(name for part in self.parts for name in part.vocabulary.names)))

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.mixture is None else len(self.mixture)

    def __getitem__(self, index: int, /) -> Any:
        return self.at(0, index)

    def at(self, epoch: int, place: int) -> Any:
        """The sample at a place of an epoch.

        Raises:
            IndexError: no such place.
        """
        part, index = self.find(epoch, place)
        sample = self.parts[part][index]
        return sample.evolve(image_id=place + 1) if self.numbered else sample

    def find(self, epoch: int, place: int) -> tuple[int, int]:
        """(data set, position in it) of the sample at a place of an epoch.

        Raises:
            IndexError: no such place.
        """
        if not 0 <= place < len(self):
            raise IndexError(f"position {place} of {len(self)}")
        row = place if self.mixture is None else int(self.rows(epoch)[place])
        part = int(np.searchsorted(self._ends, row, side="right"))
        return part, row - int(self._ends[part]) + len(self.parts[part])  # counted from the data set's own start

    def rows(self, epoch: int) -> Int[np.ndarray, " places"]:
        """For each place of an epoch, the position of its sample in the data sets joined."""
        if self.mixture is None:
            return np.arange(len(self))
        if self._rows is None or self._rows[0] != epoch:
            self._rows = epoch, self.mixture.rows(epoch)
        return self._rows[1]


def apportion(weights: Sequence[float] | Float[np.ndarray, " parts"], total: int) -> tuple[int, ...]:
    """Whole numbers in the ratio of the weights that add up to a total: the largest remainders are rounded up.

    >>> apportion([1, 1, 2], 6)
    (2, 1, 3)
    """
    shares = np.asarray(weights, np.float64)
    exact = shares / shares.sum() * total
    counts = np.floor(exact).astype(np.int64)
    # largest remainders first: each gets one of what the floors leave
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return tuple(counts.tolist())


@lru_cache(maxsize=8)
def shuffled_pass(size: int, seed: int, part: int, turn: int) -> Int[np.ndarray, " size"]:
    """The order in which a data set, the `part`-th of a mix, is gone through in its n-th turn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, part, turn]))).permutation(size)


def joint_vocabulary(sets: Sequence[Any]) -> tuple[Vocabulary, list[str]]:
    """All names of some data sets, and which category ids change, as texts.

    A name has its id in the first data set that has it, as far as no other name has that.
    """
    ids: dict[str, int] = {}
    moved: list[str] = []
    for dataset in sets:
        for name, category_id in zip(dataset.vocabulary.names, dataset.vocabulary.category_ids, strict=True):
            if name in ids:
                if ids[name] != category_id:
                    moved.append(f"{name} ({category_id} is {ids[name]})")
            elif category_id in ids.values():
                ids[name] = max(ids.values()) + 1
                moved.append(f"{name} ({category_id} is {ids[name]})")
            else:
                ids[name] = category_id
    return Vocabulary(tuple(ids), tuple(ids.values())), list(dict.fromkeys(moved))
