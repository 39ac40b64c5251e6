"""Detections of a long run, image by image and video by video; see `file_lines`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deixis.inference.images import Picture
from deixis.inference.outputs.file_lines import FileLines
from deixis.results.detections import Detections

LINES = "predictions.jsonl"


class DetectionLines:
    """The detections of finished images, and facts about finished videos, whose results have files of their own.

    Args:
        folder: the output folder.
        made_by: what determines detections.
        names: of the detections.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._lines: FileLines[Detections | dict[str, Any]] = FileLines(folder, made_by, LINES, result=self._result)

    @property
    def count(self) -> int:
        """Images and videos that are done."""
        return self._lines.count

    def has(self, image: Path) -> bool:
        """Whether an image is done, as it is now."""
        return self._lines.get(image) is not None

    def done(self, images: Sequence[Path]) -> int:
        """How many of some images are done."""
        return self._lines.done(images)

    def add(self, found: Detections, image: Path) -> None:
        """Keep an image's detections.

        Raises:
            DataError: the line cannot be written.
        """
        self._lines.add(image, detection_content(found), found)

    def finished(self, images: Sequence[Path]) -> list[Detections]:
        """The detections of those images that are done, in order; `image_id` counts them."""
        done = [(image, found) for image in images if isinstance(found := self._lines.get(image), Detections)]
        return [
            replace(found, image_id=number, image=Picture(str(image), image, image))
            for number, (image, found) in enumerate(done)
        ]

    def add_video(self, video: Path, **facts: Any) -> None:
        """Keep that all results of a video are written, with facts about them.

        Raises:
            DataError: the line cannot be written.
        """
        self._lines.add(video, {"video": facts}, facts)

    def video(self, video: Path) -> dict[str, Any] | None:
        """The facts about a video whose results are written, as it is now; None if they are not."""
        facts = self._lines.get(video)
        return facts if isinstance(facts, dict) else None

    def remove(self) -> None:
        """Once all results are written."""
        self._lines.remove()

    def _result(self, entry: Mapping[str, Any]) -> Detections | dict[str, Any]:
        if "video" in entry:
            facts = dict(entry["video"])
            return facts | {name: int(facts[name]) for name in ("frames", "objects", "tracks") if name in facts}
        return detections_of(entry, self.names)


def detection_content(found: Detections) -> dict[str, Any]:
    """Detections as JSON holds them, with all their digits."""
    return {
        "size_hw": list(found.size_hw),
        "boxes_xyxy_px": found.boxes_xyxy_px.tolist(),
        "scores": found.scores.tolist(),
        "class_ids": found.class_ids.tolist(),
    }


def detections_of(content: Mapping[str, Any], names: tuple[str, ...]) -> Detections:
    """The detections of such a content; raises ValueError, TypeError or LookupError for any other one."""
    height, width = content["size_hw"]
    found = Detections(
        np.array(content["boxes_xyxy_px"], np.float64).reshape(-1, 4),  # without detections [] is of shape [0]
        np.array(content["scores"], np.float64),
        np.array(content["class_ids"], np.int64),
        names,
        size_hw=(int(height), int(width)),
    )
    counts = {len(found.boxes_xyxy_px), len(found.scores), len(found.class_ids)}
    known = ((found.class_ids >= 0) & (found.class_ids < len(names))).all()
    if len(counts) > 1 or not (known and np.isfinite(found.boxes_xyxy_px).all() and np.isfinite(found.scores).all()):
        raise ValueError("boxes, scores and class_ids do not fit each other or the names")
    return found
