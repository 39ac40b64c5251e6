"""Images of rare classes shown more often: repeat-factor sampling (LVIS, arXiv 1908.03195, appendix B)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


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
