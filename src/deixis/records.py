"""The records that the parts exchange: frozen, and validated once, when they are created.

Outside models and losses a box is xyxy in absolute pixels and a mask is COCO RLE. Inside them a box is cxcywh divided
by the size of the unpadded image. The name of every box array says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from deixis.errors import DataError

Spans = tuple[tuple[int, int], ...]  # `[start, end)` characters, several where a phrase is split
Rle = dict[str, Any]  # COCO RLE: {"size": [height, width], "counts": bytes | str}


MAX_SIDE_PX, MAX_PIXELS = 1_000_000, 1 << 29  # of an image; a mask of this size takes half a gigabyte


def size_fault(size_hw: tuple[float, float]) -> str | None:
    """What is wrong with an image size (height, width), or None. Call it before memory is allocated."""
    height, width = size_hw
    if min(height, width) >= 1 and max(height, width) <= MAX_SIDE_PX and height * width <= MAX_PIXELS:
        return None
    return (
        f"image size (height, width) must be positive, at most {MAX_SIDE_PX} each and {MAX_PIXELS} pixels in all, "
        f"got ({height:.10g}, {width:.10g})"
    )


def check_size(size_hw: tuple[int, int], where: str) -> None:
    """Raises DataError if no image can have this size; see `size_fault`."""
    fault = size_fault(size_hw)
    if fault is not None:
        raise DataError(f"{where}: {fault}")


@dataclass(frozen=True)
class Vocabulary:
    """The class names of a data set, in order, and their category ids in its files.

    `class_ids` in deixis always index `names`; `category_ids` are used only when files are read and written.

    Raises:
        DataError: there is no name, a name is blank or occurs twice, or there are not as many distinct ids as names.

    >>> Vocabulary(("cat", "dog"), (17, 18)).category_ids
    (17, 18)
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            # frozen; COCO counts categories from 1
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.names) + 1)))
        if not self.names:
            raise DataError("a vocabulary needs at least one class name, got none")
        if any(not name.strip() for name in self.names):
            raise DataError(f"class names must not be blank, got {list(self.names)}")
        if len(set(self.names)) != len(self.names):
            doubles = sorted(name for name, count in Counter(self.names).items() if count > 1)
            raise DataError(f"class names must differ, {doubles} occur more than once; rename or merge them")
        if len(self.names) != len(self.category_ids) or len(set(self.category_ids)) != len(self.category_ids):
            raise DataError(
                f"{len(self.names)} class names need as many different category ids, got {self.category_ids}"
            )

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Instances:
    """The annotated objects of one image: any number, including none.

    Attributes:
        boxes_xyxy_px: corners in pixels of the current image (after any transform).
        class_ids: indices into the sample's vocabulary.
        is_crowd: COCO's crowd flag: not a target in training, ignored in evaluation.
        areas_px: area of the object's mask if the file has one, otherwise of its box.
        masks_rle: one COCO RLE per object, or None if the data set has only boxes.
        scores: confidence of each object, from 0 to 1, where a model found them; None where people annotated them.

    Raises:
        DataError: lengths differ or a box or score is not finite.
    """

    boxes_xyxy_px: Float[np.ndarray, "n 4"]
    class_ids: Int[np.ndarray, " n"]
    is_crowd: Bool[np.ndarray, " n"]
    areas_px: Float[np.ndarray, " n"]
    masks_rle: tuple[Rle, ...] | None = None
    scores: Float[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy_px)
        lengths = {"class_ids": len(self.class_ids), "is_crowd": len(self.is_crowd), "areas_px": len(self.areas_px)}
        if self.masks_rle is not None:
            lengths["masks_rle"] = len(self.masks_rle)
        if self.scores is not None:
            lengths["scores"] = len(self.scores)
        if self.boxes_xyxy_px.shape != (count, 4) or any(length != count for length in lengths.values()):
            raise DataError(f"boxes_xyxy_px has shape {self.boxes_xyxy_px.shape} but lengths are {lengths}")
        if not np.isfinite(self.boxes_xyxy_px).all():
            raise DataError(f"boxes must be finite numbers, got {self.boxes_xyxy_px.tolist()}")
        if self.scores is not None and not np.isfinite(self.scores).all():
            raise DataError(f"scores must be finite numbers, got {self.scores.tolist()}")

    @staticmethod
    def build(
        boxes_xyxy_px: Sequence[Sequence[float]] | np.ndarray,
        class_ids: Sequence[int] | np.ndarray,
        is_crowd: Sequence[bool] | np.ndarray | None = None,
        *,
        areas_px: Sequence[float] | np.ndarray | None = None,
        masks_rle: Sequence[Rle] | None = None,
        scores: Sequence[float] | np.ndarray | None = None,
    ) -> Instances:
        """Instances from plain lists; by default no object is a crowd, and areas are those of the boxes."""
        boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
        with np.errstate(over="ignore"):  # finite but huge corners
            # a box with its corners exchanged has area 0
            areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) if areas_px is None else areas_px
        return Instances(
            boxes_xyxy_px=boxes,
            class_ids=np.asarray(class_ids, dtype=np.int64).reshape(-1),
            is_crowd=np.zeros(len(boxes), bool) if is_crowd is None else np.asarray(is_crowd, bool).reshape(-1),
            areas_px=np.asarray(areas, np.float64).reshape(-1),
            masks_rle=None if masks_rle is None else tuple(masks_rle),
            scores=None if scores is None else np.asarray(scores, np.float64).reshape(-1),
        )

    @staticmethod
    def none() -> Instances:
        """No objects at all."""
        return Instances.build(np.zeros((0, 4)), np.zeros(0))

    def select(self, keep: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]) -> Instances:
        """The instances selected by a boolean mask or an index array, in order."""
        chosen = np.arange(len(self))[keep]  # tuples can be indexed by numbers only
        return Instances(
            self.boxes_xyxy_px[chosen],
            self.class_ids[chosen],
            self.is_crowd[chosen],
            self.areas_px[chosen],
            None if self.masks_rle is None else tuple(self.masks_rle[i] for i in chosen),
            None if self.scores is None else self.scores[chosen],
        )

    def __len__(self) -> int:
        return len(self.boxes_xyxy_px)


@dataclass(frozen=True)
class Sample:
    """One image with its annotations; the image is a file or already decoded.

    Attributes:
        image: a path, or pixels as uint8 RGB of shape (height, width, 3).
        size_hw: current (height, width) of the image, in pixels.
        instances: the annotated objects, with boxes in pixels of the current image.
        vocabulary: the names that `instances.class_ids` index; also the names in the prompt.
        image_id: the data set's own id.
        source: where the annotation was read, for messages, such as `labels.json: image 31`.
        original_size_hw: (height, width) before any transform; predictions are scaled back to it.
        absent_class_ids: classes that annotators verified to be absent (LVIS's negative categories). None means that
            all classes are annotated, so those without an object are absent. With a set, nothing is known about classes
            that are neither in it nor among the objects.
        not_exhaustive_class_ids: classes of which the image may show more objects than are annotated.
        caption: the sentence whose phrases are the class names (grounding data), or empty.
        phrase_spans: the position of each class name in the caption; empty if unknown. Then the prompt is the list of
            names, not the sentence.
        seed: for the random numbers that a training step draws for this sample; None outside training.
        model_version: the model that found the instances; empty where people annotated them.

    Raises:
        DataError: the image is empty or has another size, a class id is outside the vocabulary, a class is both absent
            and annotated, or the spans do not fit the names and the caption.
    """

    image: Path | UInt8[np.ndarray, "h w 3"]
    size_hw: tuple[int, int]
    instances: Instances
    vocabulary: Vocabulary
    image_id: int = 0
    source: str = ""
    original_size_hw: tuple[int, int] = (0, 0)
    absent_class_ids: frozenset[int] | None = None
    not_exhaustive_class_ids: frozenset[int] = frozenset()
    caption: str = ""
    phrase_spans: tuple[Spans, ...] = ()
    seed: int | None = None
    model_version: str = ""

    def __post_init__(self) -> None:
        if self.original_size_hw == (0, 0):
            object.__setattr__(self, "original_size_hw", self.size_hw)
        check_size(self.size_hw, self.source)
        if isinstance(self.image, np.ndarray) and self.image.shape[:2] != self.size_hw:
            raise DataError(f"{self.source}: pixels have size {self.image.shape[:2]}, size_hw is {self.size_hw}")
        ids = self.instances.class_ids
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.vocabulary):
            raise DataError(
                f"{self.source}: class ids {sorted(set(ids.tolist()))} are outside the {len(self.vocabulary)} names"
            )
        if self.absent_class_ids is not None or self.not_exhaustive_class_ids:
            self._check_judgements()
        if self.phrase_spans:
            self._check_spans()

    def _check_spans(self) -> None:
        fits = len(self.phrase_spans) == len(self.vocabulary) and all(self.phrase_spans)
        if not fits or any(
            not 0 <= start < end <= len(self.caption) for spans in self.phrase_spans for start, end in spans
        ):
            raise DataError(
                f"{self.source}: {len(self.vocabulary)} phrases need as many spans inside the caption "
                f"{self.caption!r}, got {self.phrase_spans}"
            )

    def _check_judgements(self) -> None:
        absent = self.absent_class_ids or frozenset()
        outside = sorted(i for i in absent | self.not_exhaustive_class_ids if not 0 <= i < len(self.vocabulary))
        if outside:
            raise DataError(f"{self.source}: judged class ids {outside} are outside the {len(self.vocabulary)} names")
        both = [self.vocabulary.names[i] for i in sorted(absent & self.present_class_ids)]
        if both:
            raise DataError(f"{self.source}: classes {both} are annotated but also listed as absent")

    @property
    def present_class_ids(self) -> frozenset[int]:
        """The classes with an object in this image, including crowds."""
        return frozenset(self.instances.class_ids.tolist())

    def judges(self, class_id: int) -> bool:
        """Whether all objects of a class are annotated: it is known to be absent, or annotated exhaustively."""
        if class_id in self.not_exhaustive_class_ids:
            return False
        return self.absent_class_ids is None or class_id in self.absent_class_ids or class_id in self.present_class_ids

    @property
    def known_absent_class_ids(self) -> frozenset[int]:
        """The classes that are certainly not in the image and can be used as negatives."""
        if self.absent_class_ids is not None:
            return self.absent_class_ids
        return frozenset(range(len(self.vocabulary))) - self.present_class_ids - self.not_exhaustive_class_ids

    def evolve(self, **changes: Any) -> Sample:
        """A copy with some fields replaced, validated again."""
        return replace(self, **changes)


@runtime_checkable
class Dataset(Protocol):
    """What every reader returns: samples by position, and their common vocabulary."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class SampleList:
    """A data set in memory (paths, not pixels). `name` is its name in reports."""

    samples: tuple[Sample, ...]
    vocabulary: Vocabulary
    name: str = "data"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[index]


def __getattr__(name: str) -> Any:
    """`Detections` under its earlier name: it has a room of its own, above this one."""
    if name == "Detections":
        return import_module("deixis.results.detections").Detections
    raise AttributeError(f"module 'deixis.records' has no attribute {name!r}")
