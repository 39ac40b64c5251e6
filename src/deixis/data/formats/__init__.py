"""Annotation formats to data sets: one file a format, one function to call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings
from deixis.data.formats.coco.read import read_coco
from deixis.data.formats.labelme.read import read_labelme
from deixis.data.formats.lvis.read import read_lvis
from deixis.data.formats.odvg.read import read_odvg
from deixis.data.formats.openimages.read import read_openimages
from deixis.data.formats.parquet.read import read_parquet
from deixis.data.formats.recognise import coco_file, recognise
from deixis.data.formats.voc.read import read_voc
from deixis.data.formats.yolo.read import read_yolo
from deixis.data.scenes.from_text import PREFIX as SCENES_PREFIX
from deixis.data.scenes.from_text import read_scenes
from deixis.errors import DataError
from deixis.records import Dataset

READERS: dict[str, Callable[..., Dataset]] = {
    "coco": read_coco,
    "lvis": read_lvis,
    "voc": read_voc,
    "yolo": read_yolo,
    "odvg": read_odvg,
    "openimages": read_openimages,
    "labelme": read_labelme,
    "parquet": read_parquet,
    "scenes": read_scenes,
}
_HAVE_MASKS = {"coco", "lvis", "yolo", "labelme"}
_HAVE_SPLITS = {"voc", "yolo", "parquet"}


def read_dataset(
    path: str | Path,
    images: Path | None = None,
    format: str | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> Dataset:
    """Read a data set, telling its format by its looks.

    Args:
        path: a file or folder of COCO, LVIS, Pascal VOC, YOLO, ODVG, Open Images, labelme or parquet annotations, or
            generated scenes as `scenes:split=demo_train,count=160,seed=1`. A split may follow: `data.yaml#val`.
        images: the folder of images, where it is not beside the annotations.
        format: a key of `READERS`, to name the format instead.
        masks: read masks too, where the format has them; detection does without.
        split: the part to read of a data set that has several (VOC, YOLO, parquet).
        findings: where what cannot be used goes, to be left out instead of refused; see
            `deixis.data.findings.Findings`.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    found = format_of(path, format)
    if found == "scenes":
        return read_scenes(path)
    path, fragment = _without_fragment(Path(path))
    options: dict[str, Any] = {"masks": masks} if found in _HAVE_MASKS else {}
    if found in _HAVE_SPLITS:
        options["split"] = split or fragment
    elif split or fragment:
        raise DataError(
            f"{path}: {found} annotations have no splits to choose from; give the file of {split or fragment!r}"
        )
    if found in ("coco", "lvis") and path.is_dir():
        path = coco_file(path)
    if findings is not None:
        options["findings"] = findings
    return READERS[found](path, images, **options)


def format_of(path: str | Path, format: str | None = None) -> str:
    """The format that `read_dataset` reads a path as, a key of `READERS`.

    Raises:
        DataError: nothing there, a name that is no format, or a format that is not recognised.
    """
    if format is not None and format not in READERS:
        raise DataError(f"unknown annotation format {format!r}; choose one of {', '.join(READERS)}")
    if format == "scenes" or str(path).startswith(SCENES_PREFIX):
        return "scenes"
    path, _ = _without_fragment(Path(path))
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the annotations' file or folder, or scenes:…")
    return format or recognise(path)


def _without_fragment(path: Path) -> tuple[Path, str | None]:
    """A path and the split named after its `#`, unless the path exists as it stands."""
    if path.exists() or "#" not in path.name:
        return path, None
    name, _, split = path.name.rpartition("#")
    return path.with_name(name), split
