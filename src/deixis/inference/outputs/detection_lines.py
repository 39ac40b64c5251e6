"""Detections of a long run, kept image by image so that it can be resumed, in a file that is gone when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deixis.errors import DataError
from deixis.inference.images import Picture
from deixis.inference.outputs.cycle import CycleLines
from deixis.results.detections import Detections

LINES = "predictions.jsonl"


class DetectionLines:
    """One line per finished image; an image that was changed since is done again.

    Lines that something else made (another model, threshold or list of names) are replaced.

    Args:
        folder: the output folder.
        made_by: what determines detections.
        names: of the detections.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], names: Sequence[str]) -> None:
        self.names = tuple(names)
        try:
            self._lines = CycleLines(folder, made_by, LINES)
        except DataError:
            (folder / LINES).unlink(missing_ok=True)
            self._lines = CycleLines(folder, made_by, LINES)
        self._found: dict[str, Detections] = {}
        self._videos: dict[str, dict[str, Any]] = {}
        with suppress(DataError, KeyError, TypeError, ValueError):  # from a damaged line on, images are done again
            for entry in self._lines.entries():
                if "video" in entry:
                    self._videos[_key(Path(entry["video"]), entry["stamp"])] = dict(entry["facts"])
                else:
                    self._found[_key(Path(entry["file"]), entry["stamp"])] = self._detections(entry)

    @property
    def count(self) -> int:
        """Images that are done."""
        return len(self._found)

    def has(self, image: Path) -> bool:
        """Whether an image is done, as it is now."""
        return _key(image, _stamp(image)) in self._found

    def done(self, images: Sequence[Path]) -> int:
        """How many of some images are done."""
        return sum(self.has(image) for image in images)

    def add(self, found: Detections, image: Path) -> None:
        """Keep an image's detections.

        Raises:
            DataError: the line cannot be written.
        """
        stamp = _stamp(image)
        self._lines.append(
            {
                "file": str(image),
                "stamp": stamp,
                "size_hw": list(found.size_hw),
                "boxes_xyxy_px": found.boxes_xyxy_px.tolist(),
                "scores": found.scores.tolist(),
                "class_ids": found.class_ids.tolist(),
            }
        )
        self._found[_key(image, stamp)] = found

    def finished(self, images: Sequence[Path]) -> list[Detections]:
        """The detections of those images that are done, in order; `image_id` counts them."""
        done = [(image, self._found[_key(image, _stamp(image))]) for image in images if self.has(image)]
        return [
            replace(found, image_id=number, image=Picture(str(image), image, image))
            for number, (image, found) in enumerate(done)
        ]

    def add_video(self, video: Path, **facts: Any) -> None:
        """Keep that all results of a video are written, with facts about them.

        Raises:
            DataError: the line cannot be written.
        """
        stamp = _stamp(video)
        self._lines.append({"video": str(video), "stamp": stamp, "facts": facts})
        self._videos[_key(video, stamp)] = facts

    def video(self, video: Path) -> dict[str, Any] | None:
        """The facts about a video whose results are written, as it is now; None if they are not."""
        return self._videos.get(_key(video, _stamp(video)))

    def remove(self) -> None:
        """Once all results are written."""
        self._lines.path.unlink(missing_ok=True)

    def _detections(self, entry: Mapping[str, Any]) -> Detections:
        height, width = entry["size_hw"]
        return Detections(
            np.array(entry["boxes_xyxy_px"], np.float64).reshape(-1, 4),
            np.array(entry["scores"], np.float64),
            np.array(entry["class_ids"], np.int64),
            self.names,
            size_hw=(int(height), int(width)),
        )


def _stamp(image: Path) -> list[int]:
    """Size and time of change of a file."""
    try:
        status = image.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _key(image: Path, stamp: Sequence[int]) -> str:
    return f"{image} {list(stamp)}"
