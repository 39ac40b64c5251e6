"""Data sets whose pictures are inside their annotation files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deixis.data.pixels.images import decode_image
from deixis.data.reading import reading
from deixis.data.sets.subset import Subset
from deixis.records import Dataset, Sample, Vocabulary


@dataclass(frozen=True)
class EmbeddedDataset:
    """Samples whose pictures are decoded each time one is asked for, so none is held in memory.

    Attributes:
        records: the samples, `image` being the file that would hold the picture, by name; it need not exist.
        read_bytes: the image file of a position, or None where `image` is itself on disk.
    """

    records: tuple[Sample, ...]
    vocabulary: Vocabulary
    name: str
    read_bytes: Callable[[int], bytes | None]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Sample:
        record = self.records[index]
        name = record.source or str(record.image)
        with reading(name, "a picture"):
            data = self.read_bytes(index)
        return record if data is None else record.evolve(image=decode_image(data, name))


def records(dataset: Dataset) -> Iterator[Sample]:
    """The samples; of a data set with embedded pictures without decoding them."""
    for index in range(len(dataset)):
        yield record_of(dataset, index)


def record_of(dataset: Dataset, index: int) -> Sample:
    """A sample; of a data set with embedded pictures without decoding it."""
    if isinstance(dataset, Subset):
        return record_of(dataset.dataset, dataset.indices[index])
    return dataset.records[index] if isinstance(dataset, EmbeddedDataset) else dataset[index]


def picture_bytes(dataset: Dataset, index: int) -> bytes | None:
    """The embedded image file of a sample; None where its picture is a file of its own."""
    if isinstance(dataset, Subset):
        return picture_bytes(dataset.dataset, dataset.indices[index])
    return dataset.read_bytes(index) if isinstance(dataset, EmbeddedDataset) else None
