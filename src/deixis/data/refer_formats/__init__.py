"""Phrases and masks of any format to a `ReferDataset`: one file per format, one table, one function to read any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deixis.data.formats.recognise import are_scenes, opened
from deixis.data.reading import reading
from deixis.data.refer_formats.table import REFER_FORMATS
from deixis.data.refer_formats.templates import DEFAULT_TEMPLATES, Objects
from deixis.data.scenes.from_text import parse_scenes
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.refer_records import ReferDataset


def read_refer(
    path: str | Path,
    images: Path | None = None,
    format: str | None = None,
    split: str | None = None,
    max_samples: int | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    objects: Objects = "all",
    absent_per_image: int = 0,
    faults: list[str] | None = None,
) -> ReferDataset:
    """Read phrases and masks; their format is recognised from the files.

    Args:
        path: a file or folder, a split of it, as in `refcoco#val`, or `scenes:split=refer_train,count=4000,seed=1`.
        images: the folder of images, where it is not beside the annotations.
        format: a key of `REFER_FORMATS`, or `scenes`, to name the format instead.
        split: the part to read, for formats with several (RefCOCO, YOLO).
        max_samples: read the first N images only; for SA-1B it bounds start-up time and memory too.
        templates, objects, absent_per_image: for formats with class names in place of phrases; see `templated`.
        faults: takes entries that cannot be used, which are then left out; without it they are an error.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if max_samples is not None and max_samples < 1:
        raise DataError(f"{path}: the number of samples must be 1 or more, got {max_samples}")
    if are_scenes(path, format, REFER_FORMATS):
        return _first(refer_scenes(*parse_scenes(str(path))), max_samples)
    with reading(str(path), "phrases and masks"):
        found, place, split = opened(Path(path), format, split, REFER_FORMATS, "phrases and masks")
        options = found.arguments(
            split=split,
            max_samples=max_samples,
            templates=templates,
            objects=objects,
            absent_per_image=absent_per_image,
            faults=faults,
        )
        return _first(found.read(place, images, **options), max_samples)


def _first(dataset: ReferDataset, count: int | None) -> ReferDataset:
    if count is None or count >= len(dataset):
        return dataset
    return Subset(dataset, tuple(range(count)), dataset.name)
