"""A part of a data set, by position."""

from __future__ import annotations

from dataclasses import dataclass

from deixis.records import Dataset, Sample, Vocabulary
from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


@dataclass(frozen=True)
class Subset:
    """The samples of a data set at some positions, in the order given; read only when asked for."""

    dataset: Dataset
    indices: tuple[int, ...]
    name: str = "data"

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the whole data set."""
        return self.dataset.vocabulary

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]


@dataclass(frozen=True)
class ReferSubset:
    """The same of a data set of phrases."""

    dataset: ReferDataset
    indices: tuple[int, ...]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> ReferSample:
        return self.dataset[self.indices[index]]


@dataclass(frozen=True)
class ClipSubset:
    """The same of a data set of clips."""

    dataset: ClipDataset
    indices: tuple[int, ...]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Clip:
        return self.dataset[self.indices[index]]
