"""Data sets to annotation formats: one function for a data set, one for its parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deixis.atomic_files import require_new_folder
from deixis.data.formats.placing import ImageMode, check_names
from deixis.data.formats.recognise import require_known
from deixis.data.formats.table import WRITTEN
from deixis.records import Dataset


def write_dataset(dataset: Dataset, folder: Path, format: str, images: ImageMode = "copy", masks: bool = True) -> Path:
    """Write a data set, annotations and images, into a new folder, whole or not at all.

    Args:
        format: a key of `WRITTEN`; `not_kept` lists what it cannot hold.
        images: copy image files, or link to where they are; a picture that is no file is always written.
        masks: write masks where the format has them.

    Returns:
        what to give to `read_dataset` to read it again.

    Raises:
        DataError: an unknown format, a folder that exists, names that no format can hold, or an unreadable image.
    """
    require_known(format, WRITTEN)
    check_names(dataset.vocabulary)
    known = WRITTEN[format]
    if known.write_parts is not None:
        return known.write_parts({"train": dataset}, folder, images, masks)
    assert known.write is not None
    return known.write(dataset, folder, images, masks)


def write_parts(
    parts: Mapping[str, Dataset], folder: Path, format: str, images: ImageMode = "copy", masks: bool = True
) -> dict[str, str]:
    """Write the parts (train, val, test) of a data set: in one folder where the format has splits, else in one each.

    Returns:
        what to give to `read_dataset` to read each part again.

    Raises:
        DataError: as `write_dataset`; a folder that is not empty.
    """
    require_new_folder(folder)
    require_known(format, WRITTEN)
    together = WRITTEN[format].write_parts
    if together is None:
        return {
            part: str(write_dataset(dataset, folder / part, format, images, masks)) for part, dataset in parts.items()
        }
    check_names(next(iter(parts.values())).vocabulary)
    written = together(parts, folder, images, masks)
    return {part: f"{written}#{part}" for part in parts}
