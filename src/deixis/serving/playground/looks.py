"""What a model found in the frames of a file, and what of it is shown: without running the model again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from deixis.data.formats.coco.write import annotation_rows, empty_content, image_row
from deixis.records import Vocabulary
from deixis.results.detections import Detections
from deixis.results.segmentations import Segmentations

Found = Detections | Segmentations
MAX_SHOWN_PX = 2048
"""Long side of a picture that is sent to the browser."""
COLUMNS = ("name", "score", "box", "caption")


@dataclass(frozen=True)
class Look:
    """One model's answer about a picture, or about some frames of a film.

    Attributes:
        model: the name that it is served by.
        texts: class names, or phrases.
        frames: all that was found in each frame, however low its score.
        clicks: frame, x and y in pixels of the image, for each object that was clicked at.
        by_presence: a mask's score is the probability that the object is there, otherwise the predicted IoU.
        captions: by frame and position in it.
    """

    model: str
    task: Literal["detect", "segment", "click"]
    texts: tuple[str, ...]
    frames: tuple[Found, ...]
    clicks: tuple[tuple[int, float, float], ...] = ()
    by_presence: bool = False
    captions: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def scores(self, frame: int) -> Float[np.ndarray, " n"]:
        """What the threshold is compared with, in [0, 1]."""
        found = self.frames[frame]
        if self.by_presence and isinstance(found, Segmentations):
            return np.array([one.present for one in found], np.float64)
        return found.scores

    def shown(self, frame: int, threshold: float) -> Int[np.ndarray, " n"]:
        """Positions of what scores at least the threshold and is not empty; whatever was clicked at is shown."""
        found = self.frames[frame]
        if self.task == "click":
            return np.arange(len(found))
        return np.flatnonzero((self.scores(frame) >= threshold) & (found.areas_px > 0))

    def drawn(self, frame: int, threshold: float) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The frame with what is shown drawn in."""
        found = self.frames[frame]
        return np.asarray(fitting(found[self.shown(frame, threshold)].plot()))

    def rows(self, frame: int, threshold: float) -> list[list[Any]]:
        """The table of what is shown, a row per object; see `COLUMNS`."""
        found, scores = self.frames[frame], self.scores(frame)
        boxes, areas = found.boxes_xyxy_px.round().astype(int).tolist(), found.areas_px
        places = [", ".join(map(str, box)) if area else "nothing" for box, area in zip(boxes, areas, strict=True)]
        return [
            [found.labels[i], round(float(scores[i]), 3), places[i], self.captions.get((frame, i), "")]
            for i in self.shown(frame, threshold).tolist()
        ]

    def coco(self, threshold: float, file_name: str) -> str:
        """What is shown, of all frames, as a COCO file: annotations with scores and, where known, captions."""
        vocabulary = Vocabulary(self.texts)
        content = empty_content(vocabulary)
        for number, found in enumerate(self.frames):
            positions = self.shown(number, threshold)
            positions = positions[found.areas_px[positions] > 0]
            sample = found[positions].to_sample(vocabulary).evolve(image_id=number + 1)
            name = file_name if len(self.frames) == 1 else f"{file_name}#{number + 1}"
            content["images"].append(image_row(sample, name))
            rows = annotation_rows(sample, len(content["annotations"]) + 1, True)
            for row, position in zip(rows, positions.tolist(), strict=True):
                row["score"] = round(float(self.scores(number)[position]), 6)
                if caption := self.captions.get((number, position)):
                    row["caption"] = caption
            content["annotations"] += rows
        return json.dumps(content, ensure_ascii=False, indent=1)


def fitting(image: Any) -> Any:
    """A picture of at most `MAX_SHOWN_PX`."""
    if max(image.size) > MAX_SHOWN_PX:
        image.thumbnail((MAX_SHOWN_PX, MAX_SHOWN_PX))
    return image
