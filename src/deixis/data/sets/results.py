"""COCO results, as detectors and evaluators write them, with the annotations whose images and classes they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import clip_instances, parse_json, read_text
from deixis.data.formats.coco.rows import plain_id
from deixis.data.formats.coco.values import box_xyxy_px, finite_number, mask_rle
from deixis.data.reading import reads, shown
from deixis.data.sets.embedded import changed, records
from deixis.errors import DataError
from deixis.records import Dataset, Instances, Sample

_NAMED = 3


@reads("COCO results")
def with_results(path: str | Path, /, dataset: Dataset, model_version: str = "") -> Dataset:
    """The images and classes of a data set with the detections of a list of COCO results in place of its objects.

    Args:
        path: a JSON list of objects with image_id, category_id, bbox [x, y, width, height] in pixels and score, and
            perhaps segmentation.
        dataset: has the images and categories of these ids.
        model_version: what made the detections.

    Raises:
        DataError: no such list, values that are none, or ids that are not in the data set.
    """
    path = Path(path)
    rows = parse_json(read_text(path), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of COCO results, got {shown(rows)}")
    classes = {str(given): row for row, given in enumerate(dataset.vocabulary.category_ids)}
    images = _image_keys(dataset)
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    faults = []
    for number, row in enumerate(rows, start=1):
        fault = _fault(row, images, classes)
        if fault:
            faults.append(f"result {number} {fault}")
        else:
            by_image[images[_id(row, "image_id", images)]].append(row)
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise DataError(f"{path}: {'; '.join(faults[:_NAMED])}{more}; give the annotations that it was measured on")

    sizes = {sample.image_id: sample.size_hw for sample in records(dataset)}
    detected = {key: _instances(group, classes, sizes[key], path) for key, group in by_image.items()}

    def found(sample: Sample) -> Sample:
        # An image without any result is one in which nothing was found.
        return sample.evolve(
            instances=detected.get(sample.image_id, Instances.none()),
            absent_class_ids=None,
            not_exhaustive_class_ids=frozenset(),
            model_version=model_version,
        )

    return changed(dataset, dataset.vocabulary, found)


def _image_keys(dataset: Dataset) -> dict[str, int]:
    """Image ids by what results may name an image by: its id, or as some evaluators do its file's name."""
    keys: dict[str, int] = {}
    for sample in records(dataset):
        if isinstance(sample.image, Path):
            keys[sample.image.stem] = keys[sample.image.name] = sample.image_id
    # an id goes before a file of that name
    return keys | {str(sample.image_id): sample.image_id for sample in records(dataset)}


def _id(row: dict[str, Any], key: str, known: Collection[str]) -> str:
    """An id of a result as it is listed: as it is written, else as the number that it is a spelling of; or empty."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return ""
    return next((text for text in (str(value), plain_id(value)) if text in known), "")


def _fault(row: Any, images: Collection[str], categories: Collection[str]) -> str:
    if not isinstance(row, dict):
        return f"is {shown(row)}, not an object"
    if not _id(row, "image_id", images):
        return f"has image_id {shown(row.get('image_id'))}, which the annotations do not list"
    if not _id(row, "category_id", categories):
        return f"has category_id {shown(row.get('category_id'))}, which the annotations do not list"
    if box_xyxy_px(row.get("bbox")) is None:
        return f"has bbox {shown(row.get('bbox'))}, not four finite numbers"
    return "" if finite_number(row.get("score")) is not None else f"has score {shown(row.get('score'))}, not a number"


def _instances(rows: list[dict[str, Any]], classes: dict[str, int], size_hw: tuple[int, int], path: Path) -> Instances:
    """Masks are kept where all detections of an image have one."""
    try:
        masks = [mask for row in rows if (mask := mask_rle(row.get("segmentation"), size_hw)) is not None]
    except ValueError as error:
        raise DataError(f"{path}: segmentation {error}") from error
    found = Instances.build(
        [box_xyxy_px(row["bbox"]) or () for row in rows],
        [classes[_id(row, "category_id", classes)] for row in rows],
        masks_rle=masks if len(masks) == len(rows) else None,
        scores=[float(row["score"]) for row in rows],
    )
    return clip_instances(found, size_hw)[0]
