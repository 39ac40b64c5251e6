"""Answers of a long run, image by image; see `file_lines`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deixis.geometry.rle import counts_rle, plain_rle
from deixis.inference.images import Picture
from deixis.inference.outputs.file_lines import FileLines
from deixis.refer_records import Segmentation
from deixis.results.segmentations import Segmentations

LINES = "segmentations.jsonl"


class SegmentationLines:
    """The answers of a long run, kept image by image.

    Args:
        folder: the output folder.
        made_by: what determines answers.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        self.files: FileLines[tuple[Segmentation, ...]] = FileLines(folder, made_by, LINES, result=_answers)

    def add(self, image: Path, found: Sequence[Segmentation]) -> None:
        """Keep an image's answers.

        Raises:
            DataError: the line cannot be written.
        """
        rows = [{**asdict(answer), "mask_rle": plain_rle(answer.mask_rle)} for answer in found]
        self.files.add(image, {"answers": rows}, tuple(found))

    def finished(self, images: Sequence[Path]) -> list[Segmentations]:
        """The answers of those images that are done, in order; `image_id` counts them."""
        done = [(image, found) for image in images if (found := self.files.get(image)) is not None]
        return [
            Segmentations(tuple(replace(one, image_id=number) for one in found), Picture(str(image), image, image))
            for number, (image, found) in enumerate(done)
        ]


def _answers(entry: Mapping[str, Any]) -> tuple[Segmentation, ...]:
    return tuple(map(_answer, entry["answers"]))


def _answer(row: Mapping[str, Any]) -> Segmentation:
    mask = row["mask_rle"]
    found = Segmentation(**{**row, "mask_rle": counts_rle(mask["counts"], tuple(mask["size"]))})
    if not (isinstance(found.text, str) and isinstance(found.answer, str)):
        raise TypeError("text and answer are texts")
    return replace(found, score=float(found.score), present=float(found.present), image_id=int(found.image_id))
