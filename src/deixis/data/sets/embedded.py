"""Data sets whose pictures are inside their annotation files, and data sets made of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from deixis.data.pixels.images import decode_image
from deixis.data.reading import reading
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.records import Dataset, Sample, SampleList, Vocabulary


@dataclass(frozen=True)
class EmbeddedDataset:
    """Samples whose pictures are decoded each time one is asked for, so none is held in memory.

    Attributes:
        records: the samples, `image` being the file that would hold the picture, by name; it need not exist. A tuple
            where they are in memory.
        read_bytes: the image file of a position, or None where `image` is itself on disk.
    """

    records: Sequence[Sample]
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


@dataclass(frozen=True)
class Changed:
    """The samples of a data set after a change of their annotations, made each time one is asked for.

    Attributes:
        change: a function that can be sent to loading workers; it leaves pictures as they are.
        vocabulary: of the changed samples.
    """

    dataset: Dataset
    vocabulary: Vocabulary
    change: Callable[[Sample], Sample]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        return self.change(self.dataset[index])


def records(dataset: Dataset) -> Iterator[Sample]:
    """The samples; of a data set with embedded pictures without decoding them."""
    for index in range(len(dataset)):
        yield record_of(dataset, index)


def record_of(dataset: Dataset, index: int) -> Sample:
    """A sample; of a data set with embedded pictures without decoding it."""
    if isinstance(dataset, Subset):
        return record_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, Joined):
        part, place = dataset.find(0, index)
        sample = record_of(dataset.parts[part], place)
        return sample.evolve(image_id=index + 1) if dataset.numbered else sample
    if isinstance(dataset, Changed):
        return dataset.change(record_of(dataset.dataset, index))
    return dataset.records[index] if isinstance(dataset, EmbeddedDataset) else dataset[index]


def picture_bytes(dataset: Dataset, index: int) -> bytes | None:
    """The embedded image file of a sample; None where its picture is a file of its own."""
    if isinstance(dataset, Subset):
        return picture_bytes(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, Joined):
        part, place = dataset.find(0, index)
        return picture_bytes(dataset.parts[part], place)
    if isinstance(dataset, Changed):
        return picture_bytes(dataset.dataset, index)
    return dataset.read_bytes(index) if isinstance(dataset, EmbeddedDataset) else None


def is_embedded(dataset: Dataset) -> bool:
    """Whether pictures are inside the annotation files."""
    while isinstance(dataset, Subset | Changed):
        dataset = dataset.dataset
    return isinstance(dataset, EmbeddedDataset)


def changed(dataset: Dataset, vocabulary: Vocabulary, change: Callable[[Sample], Sample]) -> Dataset:
    """The data set with its annotations changed: at once where they are in memory, otherwise as they are read."""
    name = str(getattr(dataset, "name", "data"))
    if isinstance(dataset, EmbeddedDataset) and isinstance(dataset.records, tuple):
        return replace(dataset, records=tuple(map(change, dataset.records)), vocabulary=vocabulary)
    if isinstance(dataset, SampleList):
        return SampleList(tuple(map(change, dataset.samples)), vocabulary, name)
    return Changed(dataset, vocabulary, change, name)
