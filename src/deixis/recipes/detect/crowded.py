"""Images with more objects than evaluation counts, or than the model can find: figures stay below 1 by construction."""

from __future__ import annotations

import warnings

from deixis.data.scenes.images import SceneDataset
from deixis.data.sets.embedded import Changed, record_of
from deixis.data.sets.mixing import Joined
from deixis.data.sets.subset import Subset
from deixis.evaluation.cocos_form import MAX_DETECTIONS, detections_per_image
from deixis.records import Dataset

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
