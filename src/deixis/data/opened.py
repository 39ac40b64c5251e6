"""Data sets as users of Python hold them: sliced, filtered, merged, split and saved.

>>> import deixis
>>> cats = deixis.read_dataset("labels.json").filter(names=["cat"], min_area=100)  # doctest: +SKIP
>>> train, val = cats.split(val=0.2)  # doctest: +SKIP
>>> train.save("cats/")  # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from deixis.data import formats
from deixis.data.findings import Findings
from deixis.data.formats.placing import ImageMode
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.data.sets.classes import with_classes
from deixis.data.sets.embedded import records
from deixis.data.sets.mixing import Joined, joint_vocabulary
from deixis.data.sets.split import duplicate_groups, sampled, split_stratified
from deixis.data.sets.subset import Subset, positions
from deixis.errors import DataError, OptionError
from deixis.records import Dataset, Sample
from deixis.text import listed

_SHOWN = 12


def read_dataset(
    path: str | Path,
    images: Path | str | None = None,
    format: str | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> OpenedDataset:
    """Read a data set; its format is recognised from the files.

    Args:
        path: a file or folder of annotations in any format, or generated scenes as
            `scenes:split=demo_train,count=160,seed=1`. A split may follow: `data.yaml#val`.
        images: the folder of images, where it is not beside the annotations.
        format: names the format instead.
        masks: read masks too, where the format has them.
        split: the part to read of a data set that has several.
        findings: takes what cannot be used, which is then left out; without it that is an error.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.

    >>> read_dataset("scenes:split=demo_val,count=4,seed=1")[1:]
    OpenedDataset(3 images, 6 classes: scenes:split=demo_val,count=4,seed=1)
    """
    place = None if images is None else Path(images)
    return opened(formats.read_dataset(path, place, format, masks, split, findings))


def opened(dataset: Dataset) -> OpenedDataset:
    """A whole data set, with what `OpenedDataset` can do."""
    return OpenedDataset(dataset, tuple(range(len(dataset))), str(getattr(dataset, "name", "data")))


class OpenedDataset(Subset):
    """Annotated images: `data[0]` is a `Sample`; `data[:5]`, `data[[0, 2]]` and every method give another data set.

    Nothing changes in place, and pictures are decoded only when they are asked for.
    """

    @overload
    def __getitem__(self, index: int, /) -> Sample: ...
    @overload
    def __getitem__(self, index: Any, /) -> OpenedDataset: ...
    def __getitem__(self, index: Any, /) -> Any:
        chosen = positions(index, len(self))
        if isinstance(chosen, int):
            return self.dataset[self.indices[chosen]]
        return self._part(chosen.tolist())

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        # without the number of objects, for which every record would be read
        return f"OpenedDataset({len(self)} images, {len(self.vocabulary)} classes: {self.name})"

    @property
    def names(self) -> tuple[str, ...]:
        """The class names."""
        return self.vocabulary.names

    def counts(self) -> dict[str, int]:
        """Objects of each class."""
        seen = Counter(one.vocabulary.names[i] for one in records(self) for i in one.instances.class_ids.tolist())
        return {name: seen[name] for name in self.names}

    def filter(
        self,
        names: str | Sequence[str] | None = None,
        min_area: float = 0.0,
        min_score: float | None = None,
        *,
        keep_empty: bool = False,
    ) -> OpenedDataset:
        """The objects of some classes, from an area in square pixels and from a score on.

        Args:
            names: all classes if not given.
            keep_empty: keep images without such an object too, as images that show none.

        Raises:
            OptionError: a name of no class.
        """
        asked = [names] if isinstance(names, str) else list(self.names if names is None else names)
        self._require(asked)
        found, _ = with_classes(self, {name: name for name in asked}, min_area_px=min_area, min_score=min_score)
        whole = opened(found)
        if keep_empty:
            return whole
        return whole[[place for place, one in enumerate(records(found)) if len(one.instances)]]

    def rename(self, names: Mapping[str, str]) -> OpenedDataset:
        """Other names for some classes; those that get one name become one class.

        Raises:
            OptionError: a name of no class.
        """
        self._require(list(names))
        return opened(with_classes(self, {name: names.get(name, name) for name in self.names})[0])

    def sample(self, count: int, seed: int = 0) -> OpenedDataset:
        """Some images, drawn so that each class is in as many as possible."""
        if count < 1:
            raise OptionError(f"count must be at least 1, got {count}")
        return self._part(sampled(self, count, seed).indices)

    def split(self, val: float = 0.2, test: float = 0.0, seed: int = 0) -> tuple[OpenedDataset, ...]:
        """(train, val), or (train, val, test): copies of an image stay together, each class is shared out evenly.

        Raises:
            OptionError: shares that leave nothing to train on.
            DataError: an image cannot be read, or there are too few.
        """
        if not (0 < val < 1 and 0 <= test < 1 - val):
            raise OptionError(f"val and test must be shares of which the rest is left for training, got {val}, {test}")
        shares = (1 - val - test, val, test) if test else (1 - val, val)
        parts = split_stratified(self, shares, seed, duplicate_groups(self))
        return tuple(self._part(part) for part in parts)

    def merge(self, *others: Dataset) -> OpenedDataset:
        """This data set and others as one; classes are one where their names are, and images get new ids.

        An image says nothing about classes that only another data set has.
        """
        parts = [self, *others]
        return opened(Joined(parts, vocabulary=joint_vocabulary(parts)[0], numbered=True))

    def __add__(self, other: Dataset) -> OpenedDataset:
        return self.merge(other)

    def save(self, folder: str | Path, format: str = "coco", *, images: ImageMode = "copy", masks: bool = True) -> Path:
        """Write annotations and images into a new folder; returns what `read_dataset` reads again.

        Args:
            format: any that is written (docs/formats.md); `lost_in` says what it cannot hold.
            images: copy image files, or link to where they are.

        Raises:
            DataError: an unknown format, a folder that is not empty, or an unreadable image.
        """
        if not len(self):
            raise DataError(f"{self.name}: no image is left to write")
        return write_dataset(self, Path(folder), format, images, masks)

    def lost_in(self, format: str) -> list[str]:
        """One line for each kind of thing that a format cannot hold."""
        return not_kept(self, format)

    def _part(self, places: Sequence[int]) -> OpenedDataset:
        return OpenedDataset(self.dataset, tuple(np.asarray(self.indices, np.int64)[list(places)].tolist()), self.name)

    def _require(self, names: Sequence[str]) -> None:
        unknown = next((name for name in names if name not in self.names), None)
        if unknown is not None:
            raise OptionError(f"names: no class {unknown!r} in {self.name}; it has {listed(list(self.names), _SHOWN)}")
