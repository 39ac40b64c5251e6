"""Several data sets as one, each drawn from as often as its weight says.

What stands at a position of an epoch is a function of (seed, epoch, position) and of nothing else. A data set is gone
through whole, in a new order each time, before any of its samples comes again, within an epoch or across epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deixis.data.sets.mixing import apportion, shuffled_pass
from deixis.errors import OptionError
from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


class Shares:
    """Which sample of which source stands at each position of an epoch.

    Args:
        sizes: samples of each source.
        weights: how often each is drawn from, relative to each other; by size where not given.
        length: positions of an epoch; the sum of the sizes where not given.
        seed: not negative.

    Raises:
        OptionError: no source, an empty one, or weights that are not one positive number a source.

    >>> shares = Shares([100, 10], weights=[1, 1], length=20)
    >>> shares.counts
    (10, 10)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        weights = list(sizes if weights is None or not len(weights) else weights)
        if not sizes or min(sizes) < 1:
            raise OptionError(f"mixing needs data sets that are not empty, got sizes {list(sizes)}")
        if len(weights) != len(sizes) or not all(0 < weight < float("inf") for weight in weights):
            raise OptionError(f"{len(sizes)} data sets need as many weights above 0, got {list(weights)}")
        if (length is not None and length < 1) or seed < 0:
            raise OptionError(f"an epoch needs 1 sample or more and the seed must be 0 or more, got {length}, {seed}")
        self.sizes, self.seed = tuple(sizes), seed
        self.counts = apportion(weights, sum(sizes) if length is None else length)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def at(self, epoch: int, position: int) -> tuple[int, int]:
        """(source, index in it) at a position of an epoch.

        Raises:
            IndexError: no such position.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        source = int(np.searchsorted(self._starts, position, side="right")) - 1
        drawn = epoch * self.counts[source] + position - int(self._starts[source])
        turn, place = divmod(drawn, self.sizes[source])
        return source, int(shuffled_pass(self.sizes[source], self.seed, source, turn)[place])


class ReferMix:
    """Data sets of phrases as one, of images or clips; see `Shares`. As a plain data set it is its first epoch."""

    def __init__(
        self,
        datasets: Sequence[ReferDataset | ClipDataset],
        weights: Sequence[float] | None = None,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        self.datasets = tuple(datasets)
        self.shares = Shares([len(dataset) for dataset in datasets], weights, length, seed)

    @property
    def name(self) -> str:
        """The names of all, joined."""
        return " + ".join(dataset.name for dataset in self.datasets)

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, index: int, /) -> Any:
        return self.at(0, index)

    def at(self, epoch: int, position: int) -> ReferSample | Clip:
        """The sample at a position of an epoch."""
        source, index = self.shares.at(epoch, position)
        return self.datasets[source][index]
