"""What is known of a detector's data before it is read: its parts, its sizes, a fingerprint."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.formats.odvg.read import OdvgDataset
from deixis.data.formats.shards import shard_index
from deixis.data.scenes.images import SceneDataset
from deixis.data.sets.embedded import Changed, record_of
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.evaluation.cocos_form import MAX_DETECTIONS, detections_per_image
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
    if _is_drawn(dataset):
        return f"{getattr(dataset, 'name', 'data')} ({len(dataset)} images)"
    digest = hashlib.sha256(repr(dataset.vocabulary.names).encode())
    for index in range(len(dataset)):
        sample = record_of(dataset, index)  # pictures inside annotation files are not decoded
        image = sample.image.name if isinstance(sample.image, Path) else ""
        digest.update(repr((image, sample.size_hw, sample.instances.class_ids.tolist())).encode())
        digest.update(np.ascontiguousarray(sample.instances.boxes_xyxy_px).tobytes())
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"


LOOKED_AT = 20_000  # images; more would take minutes


def warn_of_crowded_images(
    dataset: Dataset, queries: int, max_detections: int | None, limit: int | None = None, measured: bool = True
) -> None:
    """Warn where images have more objects than detections that count, or than the model has queries.

    Args:
        queries: of the model; it finds at most one object with each.
        max_detections: see `evaluate_detections`.
        limit: only the first images count.
        measured: the data is evaluated on; False of training data, to which only the queries matter.
    """
    if _is_drawn(dataset):
        return  # a handful of objects in each, and drawing them takes time
    count = min(len(dataset), limit or len(dataset), LOOKED_AT)  # annotations only; no picture is decoded
    records = [record_of(dataset, index) for index in range(count)]
    objects = [int((~record.instances.is_crowd).sum()) for record in records]
    most, name = max(objects, default=0), getattr(dataset, "name", "data")
    # As evaluation decides it: COCO's limit, or LVIS's where images are annotated for some classes only.
    counted = max_detections or (detections_per_image(records) if records else MAX_DETECTIONS)
    if measured and most > counted:
        warnings.warn(
            f"{name}: {sum(n > counted for n in objects)} of {count} images have more objects than the {counted} "
            f"detections of an image that count (the fullest has {most}), so AP stays below 1 even for perfect boxes; "
            f"give --max-detections {most}",
            stacklevel=2,
        )
    if most > queries:
        warnings.warn(
            f"{name}: {sum(n > queries for n in objects)} of {count} images have more objects than the model's "
            f"{queries} queries (the fullest has {most}), and it finds at most one object with each; cut such images "
            "into tiles, or use a model with more queries",
            stacklevel=2,
        )


def _is_drawn(dataset: Dataset) -> bool:
    """Whether any of it is generated scenes."""
    if isinstance(dataset, Joined):
        return any(map(_is_drawn, dataset.parts))
    return _is_drawn(dataset.dataset) if isinstance(dataset, Subset | Changed) else isinstance(dataset, SceneDataset)
