"""Annotation formats: one room per format, one table that lists them, one function to read any."""

from __future__ import annotations

from pathlib import Path

from deixis.data.findings import Findings
from deixis.data.formats.recognise import are_scenes, opened
from deixis.data.formats.table import FORMATS
from deixis.data.scenes.from_text import read_scenes
from deixis.records import Dataset

_WHAT = "annotations"


def read_dataset(
    path: str | Path,
    images: Path | None = None,
    format: str | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> Dataset:
    """Read a data set; its format is recognised from the files.

    Args:
        path: a file or folder of annotations in a format of `FORMATS`, or generated scenes as
            `scenes:split=demo_train,count=160,seed=1`. A split may follow: `data.yaml#val`.
        images: the folder of images, where it is not beside the annotations.
        format: a key of `FORMATS`, or `scenes`, to name the format instead.
        masks: read masks too, where the format has them; detection does without.
        split: the part to read of a data set that has several.
        findings: takes what cannot be used, which is then left out; without it that is an error. See
            `deixis.data.findings.Findings`.

    Raises:
        DataError: nothing there, a format that is not recognised, or annotations that cannot be used.
    """
    if are_scenes(path, format, FORMATS):
        return read_scenes(path)
    found, place, split = opened(Path(path), format, split, FORMATS, _WHAT)
    dataset: Dataset = found.read(place, images, **found.arguments(masks=masks, split=split, findings=findings))
    return dataset


def format_of(path: str | Path, format: str | None = None) -> str:
    """The format that `read_dataset` reads a path as: a key of `FORMATS`, or `scenes`.

    Raises:
        DataError: nothing there, a name that is no format, or a format that is not recognised.
    """
    if are_scenes(path, format, FORMATS):
        return "scenes"
    return opened(Path(path), format, None, FORMATS, _WHAT)[0].name
