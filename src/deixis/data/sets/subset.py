"""A part of a data set, by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
