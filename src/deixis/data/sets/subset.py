"""A part of a data set, by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from deixis.records import Vocabulary


@dataclass(frozen=True)
class Subset:
    """The samples of a data set at some positions, in the order given; read only when asked for.

    Attributes:
        dataset: of images, of phrases or of clips.
    """

    dataset: Any
    indices: tuple[int, ...]
    name: str = "data"

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the whole data set; data sets of phrases have none."""
        return self.dataset.vocabulary  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        return self.dataset[self.indices[index]]


def positions(index: Any, count: int) -> int | Int[np.ndarray, " m"]:
    """What an index selects: one position, or those of a slice, a boolean mask or a list of positions.

    Raises:
        IndexError: outside the sequence, or a mask of another length.
        TypeError: not an index.

    >>> positions(-1, 3), positions(np.array([True, False, True]), 3).tolist()
    (2, [0, 2])
    """
    if isinstance(index, int | np.integer) and not isinstance(index, bool):
        return range(count)[int(index)]
    if isinstance(index, slice):
        return np.arange(count)[index]
    # NumPy cannot read a tensor on a GPU.
    asked = np.asarray(index.cpu() if hasattr(index, "cpu") else index)
    if asked.size == 0 and asked.dtype != bool:
        return np.zeros(0, np.int64)
    if asked.ndim != 1 or asked.dtype.kind not in "biu":
        raise TypeError(f"an index must be an integer, a slice, a mask or a list of integers, got {index!r}")
    chosen: np.ndarray = np.arange(count)[asked]
    return chosen
