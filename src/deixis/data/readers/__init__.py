"""Annotation formats to data sets: one file a format, one function to call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deixis.data.readers.coco import read_coco
from deixis.data.readers.scenes import PREFIX as SCENES_PREFIX
from deixis.data.readers.scenes import read_scenes
from deixis.data.readers.voc import find_xml_files, read_voc
from deixis.errors import DataError
from deixis.records import Dataset

READERS: dict[str, Callable[..., Dataset]] = {"coco": read_coco, "voc": read_voc, "scenes": read_scenes}


def read_dataset(
    path: str | Path, images: Path | None = None, format: str | None = None, masks: bool = True
) -> Dataset:
    """Read a data set, telling its format by its looks.

    Args:
        path: a COCO JSON file, a folder holding one, a folder of Pascal VOC XML files, or generated scenes as
            `scenes:split=demo_train,count=160,seed=1`.
        images: the folder of images, where it is not beside the annotations.
        format: a key of `READERS`, to name the format instead.
        masks: read masks too, where the format has them; detection does without.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if format is not None and format not in READERS:
        raise DataError(f"unknown annotation format {format!r}; choose one of {', '.join(READERS)}")
    if format == "scenes" or str(path).startswith(SCENES_PREFIX):
        return read_scenes(path)
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a COCO JSON file, a folder of VOC XML files or scenes:…")
    if format == "voc" or (format is None and path.is_dir() and find_xml_files(path)):
        return read_voc(path, images)
    if format == "coco" or path.suffix.lower() == ".json" or path.is_dir():
        return read_coco(_json_in(path) if path.is_dir() else path, images, masks=masks)
    raise DataError(
        f"{path}: not a COCO JSON file, nor a folder of VOC XML files; name its format: {', '.join(READERS)}"
    )


def _json_in(folder: Path) -> Path:
    """The only JSON file of a folder or of its `annotations`."""
    found = sorted(file for place in (folder, folder / "annotations") for file in place.glob("*.json"))
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{folder}: holds several JSON files ({_some(found)}); give the one to read")
    nested = sorted(child for child in folder.iterdir() if child.is_dir() and find_xml_files(child))
    hint = f"; give one of its folders: {_some(nested)}" if nested else "; give the folder of the annotations"
    raise DataError(f"{folder}: no VOC XML and no COCO JSON file in it{hint}")


def _some(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:4]) + (", …" if len(paths) > 4 else "")
