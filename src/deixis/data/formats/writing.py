"""Data sets to annotation formats: one file a format, one function to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deixis.data.formats.coco.write import write_coco
from deixis.data.formats.labelme.write import write_labelme
from deixis.data.formats.lvis.write import write_lvis
from deixis.data.formats.not_kept import losses
from deixis.data.formats.odvg.write import write_odvg
from deixis.data.formats.openimages.write import write_openimages
from deixis.data.formats.parquet.write import write_parquet, write_parquet_splits
from deixis.data.formats.placing import ImageMode, check_names
from deixis.data.formats.voc.write import write_voc
from deixis.data.formats.yolo.write import write_yolo, write_yolo_splits
from deixis.errors import DataError
from deixis.records import Dataset

WRITERS: dict[str, Callable[[Dataset, Path, ImageMode, bool], Path]] = {
    "coco": write_coco,
    "lvis": write_lvis,
    "voc": write_voc,
    "yolo": write_yolo,
    "odvg": write_odvg,
    "openimages": write_openimages,
    "labelme": write_labelme,
    "parquet": write_parquet,
}

__all__ = ["WRITERS", "losses", "write_dataset", "write_parts"]


def write_dataset(dataset: Dataset, folder: Path, format: str, images: ImageMode = "copy", masks: bool = True) -> Path:
    """Write a data set, annotations and images, into a new folder, whole or not at all.

    Args:
        format: a key of `WRITERS`; what it cannot hold is what `losses` says.
        images: copy image files, or link to where they are; a picture that is no file is always written.
        masks: write masks where the format has them.

    Returns:
        what to give to `read_dataset` to read it again.

    Raises:
        DataError: an unknown format, a folder that exists, names that no format can hold, or an unreadable image.
    """
    if format not in WRITERS:
        raise DataError(f"unknown annotation format {format!r}; choose one of {', '.join(WRITERS)}")
    check_names(dataset.vocabulary)
    return WRITERS[format](dataset, folder, images, masks)


def write_parts(
    parts: Mapping[str, Dataset], folder: Path, format: str, images: ImageMode = "copy", masks: bool = True
) -> dict[str, str]:
    """Write the parts (train, val, test) of a data set: in one folder where the format has splits, else in one each.

    Returns:
        what to give to `read_dataset` to read each part again.

    Raises:
        DataError: as `write_dataset`; a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; choose another output folder")
    if format not in ("yolo", "parquet"):
        return {
            part: str(write_dataset(dataset, folder / part, format, images, masks)) for part, dataset in parts.items()
        }
    check_names(next(iter(parts.values())).vocabulary)
    if format == "yolo":
        written = write_yolo_splits(parts, folder, images, masks)
    else:
        written = write_parquet_splits(parts, folder)
    return {part: f"{written}#{part}" for part in parts}
