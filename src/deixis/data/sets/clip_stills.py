"""Clips as images, one frame of each; and captions of what is visible in that frame as captions of the clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pycocotools import mask as coco_mask

from deixis.errors import DataError
from deixis.refer_records import Expression, ReferSample
from deixis.video_records import Clip, ClipDataset, ClipExpression


@dataclass(frozen=True)
class ClipStills:
    """The labelled frame of each clip that shows most of its objects, as an image. `image_id` is the clip's position.

    Attributes:
        masks_only: every visible object is an expression without sentences, as if the clip had no captions.
    """

    clips: ClipDataset
    masks_only: bool = False

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.clips.name}, a frame of each"

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int, /) -> ReferSample:
        """The frame, decoded.

        Raises:
            DataError: the clip has no labels, or its frame cannot be decoded.
        """
        clip = self.clips[index]
        label = fullest_label(clip)
        sample = clip.sample_at(label).evolve(image_id=index)
        if not self.masks_only:
            return sample
        masks = [mask for masklet in clip.masklets if (mask := masklet.masks_rle[label]) is not None]
        return sample.evolve(
            expressions=tuple(Expression((), (mask,), expression_id=number) for number, mask in enumerate(masks, 1))
        )


@dataclass(frozen=True)
class CaptionedClips:
    """Clips with the captions that their objects were given in `ClipStills(clips, masks_only=True)`.

    Attributes:
        captions: (position of the clip, sentences by expression_id) of each clip that has any.
        name: what reports call it.
    """

    clips: ClipDataset
    captions: tuple[tuple[int, Mapping[int, tuple[str, ...]]], ...]
    name: str

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int, /) -> Clip:
        position, texts = self.captions[index]
        clip = self.clips[position]
        label = fullest_label(clip)
        seen = [number for number, masklet in enumerate(clip.masklets) if masklet.masks_rle[label] is not None]
        return clip.evolve(
            expressions=tuple(
                ClipExpression(said, (seen[number - 1],), ("cycle",), number) for number, said in texts.items()
            )
        )


def fullest_label(clip: Clip) -> int:
    """The label of the frame that shows most objects; of several such the one where they are largest, then the first.

    Raises:
        DataError: the clip has no labels.
    """
    if not clip.labelled:
        raise DataError(f"{clip.source}: has no labelled frames")
    masks = [
        [m.masks_rle[label] for m in clip.masklets if m.masks_rle[label] is not None]
        for label in range(len(clip.labelled))
    ]
    # `-label`: of equal frames the first.
    return max(range(len(masks)), key=lambda label: (len(masks[label]), sum(map(_area, masks[label])), -label))


def _area(mask: object) -> int:
    return int(coco_mask.area(mask))
