"""What a segmenter answered for one image: a sequence that is sliced, filtered, drawn, saved and converted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.inputs.pictures import Picture
from deixis.data.sets.subset import positions
from deixis.errors import DataError
from deixis.geometry.rle import bitmap_rle, plain_rle
from deixis.records import Instances, Sample, Vocabulary
from deixis.refer_records import Segmentation
from deixis.results import exports, supervision
from deixis.results.draw import draw_masks
from deixis.results.result import Result, require_share


@dataclass(frozen=True, eq=False, repr=False)
class Segmentations(Result[Segmentation]):
    """The answers to the phrases asked about one image, one each, in order; masks of absent objects are empty.

    `found[0]` is a `Segmentation`; `found[:5]`, `found[found.scores > 0.5]` and `found[[0, 2]]` are `Segmentations`.
    They equal a list of the same answers.

    Attributes:
        answers: in the order of the phrases.
        image: what they were found in, decoded again when it is needed; None if unknown.
        size_hw: (height, width) of the image; that of the masks.
    """

    columns = ("label", "score", "present", "area", "left", "top", "right", "bottom", "image", "image_id")

    answers: tuple[Segmentation, ...]
    image: Picture | None = None
    size_hw: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", tuple(self.answers))
        if self.answers:
            height, width = self.answers[0].mask_rle["size"]
            object.__setattr__(self, "size_hw", (int(height), int(width)))

    @property
    def labels(self) -> list[str]:
        """The phrase of each answer."""
        return [answer.text for answer in self.answers]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The phrases, each once."""
        return tuple(dict.fromkeys(self.labels))

    @property
    def class_ids(self) -> Int[np.ndarray, " n"]:
        """Indices into `names`."""
        return np.array([self.names.index(label) for label in self.labels], np.int64)

    @property
    def scores(self) -> Float[np.ndarray, " n"]:
        """The predicted IoU of each mask, in [0, 1]."""
        return np.array([answer.score for answer in self.answers], np.float64)

    @property
    def image_id(self) -> int:
        """Of the image; 0 without an answer."""
        return self.answers[0].image_id if self.answers else 0

    @property
    def masks(self) -> Bool[np.ndarray, "n h w"]:
        """The masks as bitmaps, all at once; `bitmap` gives one."""
        return np.array([self.bitmap(i) for i in range(len(self))], bool).reshape(len(self), *self.size_hw)

    @property
    def areas_px(self) -> Float[np.ndarray, " n"]:
        """The area of each mask."""
        return np.array([float(coco_mask.area(answer.mask_rle)) for answer in self.answers], np.float64)

    @property
    def boxes_xyxy_px(self) -> Float[np.ndarray, "n 4"]:
        """The tight box of each mask; zeros where it is empty."""
        # COCO's left, top, width, height
        boxes = np.array([coco_mask.toBbox(answer.mask_rle) for answer in self.answers], np.float64).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def bitmap(self, index: int) -> Bool[np.ndarray, "h w"]:
        """One mask as a bitmap."""
        return np.asarray(coco_mask.decode(self.answers[index].mask_rle), bool)

    # A sequence

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, index: int, /) -> Segmentation: ...
    @overload
    def __getitem__(self, index: Any, /) -> Segmentations: ...
    def __getitem__(self, index: Any, /) -> Segmentation | Segmentations:
        chosen = positions(index, len(self))
        if isinstance(chosen, int):
            return self.answers[chosen]
        return Segmentations(tuple(self.answers[i] for i in chosen), self.image, self.size_hw)

    def __iter__(self) -> Iterator[Segmentation]:
        return iter(self.answers)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Segmentations):
            return self.answers == other.answers and self.size_hw == other.size_hw
        return list(self.answers) == list(other) if isinstance(other, list | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # masks can change

    # Choosing

    def shown(self) -> Segmentations:
        """Those whose mask is not empty."""
        return self.filter(min_area=1)

    def with_nms(self, iou: float = 0.5, class_agnostic: bool = False) -> Segmentations:
        """Without those whose mask overlaps a better one of the same phrase, or of any, with at least this IoU.

        Raises:
            OptionError: `iou` is outside [0, 1].
        """
        require_share("iou", iou)
        kept: list[int] = []
        rles, labels = [answer.mask_rle for answer in self.answers], self.labels
        for i in np.argsort(-self.scores, kind="stable").tolist():
            rivals = [rles[j] for j in kept if class_agnostic or labels[j] == labels[i]]
            if not rivals or coco_mask.iou([rles[i]], rivals, [0] * len(rivals)).max() < iou:  # [0]: no crowds
                kept.append(i)
        return self[sorted(kept)]

    # Pixels

    def plot(self) -> Image.Image:
        """The image with tinted and named masks; a small one is enlarged by a whole factor.

        Raises:
            DataError: the image is not known or cannot be read.
        """
        return Image.fromarray(draw_masks(self.pixels(), [self.bitmap(i) for i in range(len(self))], self.labels))

    def crop(self, margin: float = 0.0, background: int | None = None) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """The pixels of each mask's box; of an empty mask, one pixel.

        Args:
            margin: added on each side, as a share of the box's own sides.
            background: the value of pixels outside the mask; None leaves them.

        Raises:
            DataError: the image is not known or cannot be read.
        """
        pixels = self.pixels()
        cut = []
        for i, box in enumerate(self.boxes_xyxy_px):
            shown = pixels if background is None else np.where(self.bitmap(i)[..., None], pixels, np.uint8(background))
            cut += exports.crops(shown, box[None], margin)
        return cut

    # Other forms

    def rows(self) -> list[dict[str, Any]]:
        """One plain record per answer: label, score, present, area, left, top, right, bottom in pixels, image."""
        name = self.image.name if self.image is not None else ""
        return [
            {
                "label": answer.text,
                "score": answer.score,
                "present": answer.present,
                "area": int(area),
                **dict(zip(("left", "top", "right", "bottom"), map(float, box), strict=True)),
                "image": name,
                "image_id": answer.image_id,
            }
            for answer, area, box in zip(self.answers, self.areas_px, self.boxes_xyxy_px, strict=True)
        ]

    def to_sample(self, vocabulary: Vocabulary | None = None) -> Sample:
        """As annotations of the image, its phrases as class names; empty masks are left out.

        Raises:
            DataError: there is no answer, or a phrase is not in the vocabulary.
        """
        shown = self.shown()
        ids = [self.names.index(label) for label in shown.labels]
        rles = [plain_rle(answer.mask_rle) for answer in shown]
        instances = Instances.build(shown.boxes_xyxy_px, ids, areas_px=shown.areas_px, masks_rle=rles)
        return exports.sample_of(
            self.image, self.size_hw, instances, names=self.names, vocabulary=vocabulary, image_id=self.image_id
        )

    def to_coco(self, vocabulary: Vocabulary | None = None) -> list[dict[str, Any]]:
        """COCO results with masks as RLE; empty masks are left out. See `Detections.to_coco`."""
        category_ids = exports.category_ids_of(self.names, vocabulary, self.image_id)
        shown = self.shown()
        boxes = exports.coco_results(shown, None)
        return [
            {
                **box,
                "category_id": category_ids[self.names.index(answer.text)],
                "segmentation": plain_rle(answer.mask_rle),
                "caption": answer.text,
            }
            for box, answer in zip(boxes, shown, strict=True)
        ]

    def to_supervision(self) -> Any:
        """As `supervision.Detections` with masks.

        Raises:
            OptionError: supervision is not installed.
        """
        return supervision.to_supervision(self, self.masks)

    @staticmethod
    def from_supervision(found: Any, names: Sequence[str] | None = None) -> Segmentations:
        """From `supervision.Detections` with masks, best first; names as in `Detections.from_supervision`.

        Raises:
            DataError: there are no masks, or no class names.
        """
        if found.mask is None:
            raise DataError("these supervision.Detections have no masks; Detections.from_supervision takes boxes alone")
        bitmaps = np.asarray(found.mask, bool)
        fields = supervision.from_supervision(found, names, bitmaps.shape[1:])
        answers = tuple(
            Segmentation(
                fields["names"][class_id], bitmap_rle(bitmaps[place]), float(score), image_id=fields["image_id"]
            )
            for place, class_id, score in zip(fields["order"], fields["class_ids"], fields["scores"], strict=True)
        )
        return Segmentations(answers, size_hw=fields["size_hw"])

    def __repr__(self) -> str:
        shown = [answer.text for answer, area in zip(self.answers, self.areas_px, strict=True) if area]
        return exports.summary("Segmentations", shown, "object", self.image, self.size_hw)
