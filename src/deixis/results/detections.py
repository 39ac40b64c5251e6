"""What a detector found in one image: a sequence that is sliced, filtered, drawn, saved and converted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from deixis.data.inputs.pictures import Picture
from deixis.data.sets.subset import positions
from deixis.geometry.pixel_boxes import clip_boxes, nms
from deixis.records import Instances, Sample, Vocabulary
from deixis.results import exports, supervision
from deixis.results.draw import draw_detections
from deixis.results.result import Result, require_share


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        label: its class name.
        score: in [0, 1].
        box_xyxy_px: (left, top, right, bottom) in pixels of the image.
        class_id: index of the label in `Detections.names`.
        track_id: of the object through a video; None if it was not tracked.
    """

    label: str
    score: float
    box_xyxy_px: tuple[float, float, float, float]
    class_id: int
    track_id: int | None = None

    @property
    def area_px(self) -> float:
        """Of the box."""
        left, top, right, bottom = self.box_xyxy_px
        return max(right - left, 0.0) * max(bottom - top, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Detections(Result[Detection]):
    """The detections in one image, best first.

    `found[0]` is a `Detection`; `found[:5]`, `found[found.scores > 0.5]` and `found[[0, 2]]` are `Detections`.

    Attributes:
        boxes_xyxy_px: corners in pixels of the original image.
        scores: in [0, 1].
        class_ids: indices into `names`.
        names: the class names in the prompts.
        size_hw: (height, width) of the image; (0, 0) if unknown.
        image: what they were found in, decoded again when it is needed; None if unknown.
        track_ids: of each object through a video, from 1; -1 for one that is not tracked yet. None without tracking.

    >>> boxes = np.array([[10.0, 20, 50, 40], [12, 20, 50, 42], [0, 0, 9, 9]])
    >>> found = Detections(boxes, np.array([0.9, 0.8, 0.4]), np.array([0, 0, 1]), ("cat", "dog"), size_hw=(60, 80))
    >>> found
    Detections(3 objects in 80x60 pixels: 2 cat, 1 dog)
    >>> found.with_nms().filter(min_score=0.5)[0]
    Detection(label='cat', score=0.9, box_xyxy_px=(10.0, 20.0, 50.0, 40.0), class_id=0, track_id=None)
    """

    boxes_xyxy_px: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    class_ids: Int[np.ndarray, " n"]
    names: tuple[str, ...]
    image_id: int = 0
    size_hw: tuple[int, int] = (0, 0)
    image: Picture | None = field(default=None)
    track_ids: Int[np.ndarray, " n"] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys of `rows`."""
        usual = ("label", "score", "left", "top", "right", "bottom", "class_id", "image", "image_id")
        return usual if self.track_ids is None else (*usual, "track_id")

    @property
    def labels(self) -> list[str]:
        """The class name of each detection."""
        return [self.names[i] for i in self.class_ids]

    @property
    def areas_px(self) -> Float[np.ndarray, " n"]:
        """The area of each box."""
        sides = np.clip(self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2], 0, None)  # [n, 2]
        areas: np.ndarray = sides.prod(1)
        return areas

    # A sequence

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int, /) -> Detection: ...
    @overload
    def __getitem__(self, index: Any, /) -> Detections: ...
    def __getitem__(self, index: Any, /) -> Detection | Detections:
        chosen = positions(index, len(self))
        if isinstance(chosen, int):
            class_id = int(self.class_ids[chosen])
            left, top, right, bottom = map(float, self.boxes_xyxy_px[chosen])
            track_id = -1 if self.track_ids is None else int(self.track_ids[chosen])
            return Detection(
                self.names[class_id],
                float(self.scores[chosen]),
                (left, top, right, bottom),
                class_id,
                track_id if track_id >= 0 else None,
            )
        return replace(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[chosen],
            scores=self.scores[chosen],
            class_ids=self.class_ids[chosen],
            track_ids=None if self.track_ids is None else self.track_ids[chosen],
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        if (self.names, self.image_id, self.size_hw) != (other.names, other.image_id, other.size_hw):
            return False
        arrays = ("boxes_xyxy_px", "scores", "class_ids", "track_ids")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays)

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    # Choosing

    def best(self, count: int) -> Detections:
        """The best `count` detections, or all if there are fewer."""
        return self if len(self) <= count else self[:count]

    def above(self, threshold: float) -> Detections:
        """The detections that score at least `threshold`."""
        return self[self.scores >= threshold]

    def with_nms(self, iou: float = 0.5, class_agnostic: bool = False) -> Detections:
        """Without those that overlap a better one of the same class, or of any, with at least this IoU.

        Raises:
            OptionError: `iou` is outside [0, 1].
        """
        require_share("iou", iou)
        groups = None if class_agnostic else self.class_ids
        return self[nms(self.boxes_xyxy_px, self.scores, iou, groups=groups)]

    # Pixels

    def plot(self) -> Image.Image:
        """The image with framed and named objects; a small one is enlarged by a whole factor.

        Raises:
            DataError: the image is not known or cannot be read.
        """
        return Image.fromarray(draw_detections(self.pixels(), self))

    def crop(self, margin: float = 0.0) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """The pixels of each object.

        Args:
            margin: added on each side, as a share of the box's own sides.

        Raises:
            DataError: the image is not known or cannot be read.
        """
        return exports.crops(self.pixels(), self.boxes_xyxy_px, margin)

    # Other forms

    def rows(self) -> list[dict[str, Any]]:
        """One plain record per object: label, score, left, top, right, bottom in pixels, class_id, image; track_id."""
        name = self.image.name if self.image is not None else ""
        return [
            {
                "label": one.label,
                "score": one.score,
                **dict(zip(("left", "top", "right", "bottom"), one.box_xyxy_px, strict=True)),
                "class_id": one.class_id,
                "image": name,
                "image_id": self.image_id,
                **({} if self.track_ids is None else {"track_id": one.track_id}),
            }
            for one in self
        ]

    def to_sample(self, vocabulary: Vocabulary | None = None) -> Sample:
        """As annotations of the image, for every format that deixis writes.

        Raises:
            DataError: the size of the image is unknown, or a name is not in the vocabulary.
        """
        return exports.sample_of(
            self.image,
            self.size_hw,
            Instances.build(clip_boxes(self.boxes_xyxy_px, self.size_hw), self.class_ids),
            names=self.names,
            vocabulary=vocabulary,
            image_id=self.image_id,
        )

    def to_coco(self, vocabulary: Vocabulary | None = None) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, bbox as [left, top, width, height] in pixels, score.

        Args:
            vocabulary: has the category ids; without it an id is the position among the names, from 1.

        Raises:
            DataError: a name is not in the vocabulary.
        """
        return exports.coco_results(self, vocabulary)

    def to_supervision(self) -> Any:
        """As `supervision.Detections`.

        Raises:
            OptionError: supervision is not installed.
        """
        return supervision.to_supervision(self)

    @staticmethod
    def from_supervision(
        found: Any, names: Sequence[str] | None = None, size_hw: tuple[int, int] | None = None
    ) -> Detections:
        """From `supervision.Detections`.

        Args:
            names: of the class ids; by default those that deixis or `data["class_name"]` stored.
            size_hw: of the image; by default the one that deixis stored, else unknown.

        Raises:
            DataError: there are no class names.
        """
        fields = supervision.from_supervision(found, names, size_hw)
        return Detections(**{name: value for name, value in fields.items() if name != "order"})

    def __repr__(self) -> str:
        return exports.summary("Detections", self.labels, "object", self.image, self.size_hw)
