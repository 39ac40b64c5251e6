"""Phrases and masks of any format to a `ReferDataset`: one file a format, one function to call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deixis.data.formats import read_dataset
from deixis.data.reading import reading, require_regular
from deixis.data.refer_formats.openimages_masks import read_openimages_masks
from deixis.data.refer_formats.plain_json import read_refer_json
from deixis.data.refer_formats.recognise import recognise_refer
from deixis.data.refer_formats.refcoco import read_refcoco
from deixis.data.refer_formats.sa1b import read_sa1b
from deixis.data.refer_formats.templates import DEFAULT_TEMPLATES, Objects, templated
from deixis.data.scenes.from_text import PREFIX as SCENES_PREFIX
from deixis.data.scenes.from_text import parse_scenes
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.data.sets.subset import ReferSubset
from deixis.errors import DataError
from deixis.refer_records import ReferDataset

TEMPLATE_FORMATS = ("coco", "lvis", "yolo", "labelme")  # detection data with masks: class names become phrases
REFER_FORMATS = ("refcoco", "refer_json", "sa1b", "openimages_masks", *TEMPLATE_FORMATS, "scenes")


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
    """Read phrases and masks, telling the format by the files.

    Args:
        path: a file or folder, a split of it, as in `refcoco#val`, or `scenes:split=refer_train,count=4000,seed=1`.
        images: the folder of images, where it is not beside the annotations.
        format: one of `REFER_FORMATS`, to name the format instead.
        split: the part to read, for formats with several (RefCOCO, YOLO).
        max_samples: at most so many images, the first ones; for SA-1B it bounds start-up time and memory too.
        templates, objects, absent_per_image: for formats with class names in place of phrases; see `templated`.
        faults: takes entries that cannot be used, which are then left out; without it they are an error.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if format is not None and format not in REFER_FORMATS:
        raise DataError(f"unknown format {format!r}; choose one of {', '.join(REFER_FORMATS)}")
    if max_samples is not None and max_samples < 1:
        raise DataError(f"{path}: the number of samples must be 1 or more, got {max_samples}")
    if format == "scenes" or str(path).startswith(SCENES_PREFIX):
        return _first(refer_scenes(*parse_scenes(str(path))), max_samples)
    with reading(str(path), "phrases and masks"):
        return _read_files(Path(path), images, format, split, max_samples, templates, objects, absent_per_image, faults)


def _read_files(
    path: Path,
    images: Path | None,
    format: str | None,
    split: str | None,
    max_samples: int | None,
    templates: Sequence[str],
    objects: Objects,
    absent_per_image: int,
    faults: list[str] | None,
) -> ReferDataset:
    place, fragment = _without_fragment(path)
    split = split or fragment
    require_regular(place)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; give the annotations' file or folder, or scenes:…")
    found = format or recognise_refer(place)
    if split is not None and found not in ("refcoco", *TEMPLATE_FORMATS):
        raise DataError(f"{place}: {found} has no splits to choose from, got {split!r}")
    if found == "sa1b":
        return read_sa1b(place, images, max_samples)
    if found == "refcoco":
        return _first(read_refcoco(place, images, split, faults), max_samples)
    if found == "refer_json":
        return _first(read_refer_json(place, images, faults), max_samples)
    if found == "openimages_masks":
        return _first(read_openimages_masks(place, images, templates, objects, faults), max_samples)
    dataset = read_dataset(place, images, found, masks=True, split=split)
    return _first(templated(dataset, templates, objects, absent_per_image), max_samples)


def _first(dataset: ReferDataset, count: int | None) -> ReferDataset:
    if count is None or count >= len(dataset):
        return dataset
    return ReferSubset(dataset, tuple(range(count)), dataset.name)


def _without_fragment(path: Path) -> tuple[Path, str | None]:
    """A path and the split named after its `#`, unless the path exists as it stands."""
    if path.exists() or "#" not in path.name:
        return path, None
    name, _, split = path.name.rpartition("#")
    return path.with_name(name), split
