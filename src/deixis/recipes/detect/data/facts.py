"""What is known of a detector's data before it is read: its parts, its sizes, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.formats.odvg.read import OdvgDataset
from deixis.data.formats.shards.read import shard_index
from deixis.data.sets.mixing import Joined
from deixis.records import Dataset, SampleList


def has_objects(dataset: Dataset) -> bool:
    """Whether there is an object that is no crowd."""
    return any((~dataset[index].instances.is_crowd).any() for index in range(len(dataset)))


def parts_of(dataset: Dataset) -> tuple[Dataset, ...]:
    """The data sets that one was joined from; itself where it was not."""
    return dataset.parts if isinstance(dataset, Joined) else (dataset,)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """One data set of several; a single one as it is."""
    return parts[0] if len(parts) == 1 else Joined(parts)


def lies_in_files(dataset: Dataset) -> bool:
    """Whether reading a sample is cheap: its image stays on disk."""
    return all(isinstance(part, SampleList) or isinstance(part[0].image, Path) for part in parts_of(dataset))


def fingerprint(dataset: Dataset) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if isinstance(dataset, Joined):
        return " + ".join(fingerprint(part) for part in dataset.parts)
    if isinstance(dataset, OdvgDataset):  # hashed already, while it was checked
        names = hashlib.sha256(repr(dataset.vocabulary.names).encode()).hexdigest()
        return f"{len(dataset)} images, {dataset.digest[:12]}, {names[:4]}"
    shards = shard_index(dataset)
    if shards is not None:  # which list the checksums of all files
        return f"{len(dataset)} images, {shards.digest[:12]}"
    if not lies_in_files(dataset):
        return f"{getattr(dataset, 'name', 'data')} ({len(dataset)} images)"
    digest = hashlib.sha256(repr(dataset.vocabulary.names).encode())
    for index in range(len(dataset)):
        sample = dataset[index]
        image = sample.image.name if isinstance(sample.image, Path) else ""
        digest.update(repr((image, sample.size_hw, sample.instances.class_ids.tolist())).encode())
        digest.update(np.ascontiguousarray(sample.instances.boxes_xyxy_px).tobytes())
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"
