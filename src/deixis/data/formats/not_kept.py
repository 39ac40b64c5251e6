"""What an annotation format cannot hold of a data set, said before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.formats.odvg.write import is_grounding, shared_names
from deixis.data.formats.placing import conformed
from deixis.data.sets.embedded import records
from deixis.records import Dataset, Instances, Sample

_SOME = 5
_TOLERANCE_PX = 1e-3


@dataclass(frozen=True)
class Holds:
    """What a format keeps; by default nothing but boxes and the names of their classes."""

    masks: bool = False
    boxes_beside_masks: bool = True
    areas: bool = False
    crowds: bool = False
    image_ids: bool = False
    category_ids: bool = False
    absent: bool = False
    not_exhaustive: bool = False
    all_names: bool = True
    own_names: bool = False


HOLDS = {
    "coco": Holds(masks=True, areas=True, crowds=True, image_ids=True, category_ids=True),
    "lvis": Holds(masks=True, areas=True, image_ids=True, category_ids=True, absent=True, not_exhaustive=True),
    "voc": Holds(all_names=False),
    "yolo": Holds(masks=True, boxes_beside_masks=False),
    "odvg": Holds(own_names=True),
    "openimages": Holds(crowds=True, absent=True),
    "labelme": Holds(masks=True, boxes_beside_masks=False, crowds=True),
    "parquet": Holds(areas=True, crowds=True, image_ids=True),
}


def losses(dataset: Dataset, format: str, masks: bool = True) -> list[str]:
    """One line for each kind of thing that writing a data set in a format leaves out or changes; none if it keeps all.

    Args:
        format: a key of `WRITERS`.
        masks: whether masks are to be written where the format has them.
    """
    holds = HOLDS[format]
    samples = [_without_pixels(sample) for sample in records(dataset)]
    with_masks = masks and holds.masks
    return list(
        chain(
            _of_vocabulary(dataset, samples, format, holds),
            _of_images(dataset, samples, format, holds),
            _of_objects([_kept(sample.instances, holds) for sample in samples], format, holds, with_masks),
            _of_crowds(samples, format, holds),
        )
    )


def _of_vocabulary(dataset: Dataset, samples: list[Sample], format: str, holds: Holds) -> list[str]:
    said = []
    names, ids = dataset.vocabulary.names, dataset.vocabulary.category_ids
    if not holds.category_ids and ids != tuple(range(1, len(ids) + 1)):
        said.append(f"category ids: {format} numbers classes by position")
    if not holds.all_names:
        used = {names[i] for s in samples for i in _kept(conformed(s, dataset.vocabulary).instances, holds).class_ids}
        unused = [name for name in names if name not in used]
        if unused:
            said.append(f"names without objects: {_some(unused)}; {format} lists classes by their objects only")
        if [name for name in names if name in used] != sorted(used):
            said.append(f"order of the names: {format} has none, so they come back sorted")
    if format == "lvis" and any("_" in name for name in names):
        said.append("'_' in names: lvis writes it for a blank, so it comes back as one")
    return said


def _of_images(dataset: Dataset, samples: list[Sample], format: str, holds: Holds) -> list[str]:
    said = []
    own = sum(sample.vocabulary.names != dataset.vocabulary.names for sample in samples)
    if own and not holds.own_names:
        said.append(
            f"names of {own} images of their own: {format} has one vocabulary, here of {len(dataset.vocabulary)}"
        )
        samples = [conformed(sample, dataset.vocabulary) for sample in samples]
    if not holds.image_ids and [sample.image_id for sample in samples] != list(range(1, len(samples) + 1)):
        said.append(f"image ids: {format} numbers images by position or names them")
    captions = sum(bool(sample.caption) for sample in samples)
    if captions and format != "odvg":
        said.append(f"captions of {captions} images")
    absent = sum(sample.absent_class_ids is not None and not _nothing_known(sample, format) for sample in samples)
    if absent and not holds.absent:
        said.append(f"lists of classes looked for in {absent} images: {format} takes every class as looked for")
    partly = sum(bool(sample.not_exhaustive_class_ids) for sample in samples)
    if partly and not holds.not_exhaustive:
        said.append(f"classes not annotated exhaustively in {partly} images: {format} takes all objects as annotated")
    if format == "odvg":
        said += _of_phrases(dataset, samples)
    return said


def _nothing_known(sample: Sample, format: str) -> bool:
    return format == "odvg" and sample.absent_class_ids == frozenset() and not len(sample.instances)


def _of_phrases(dataset: Dataset, samples: list[Sample]) -> list[str]:
    shared = shared_names(dataset)
    grounding = [sample for sample in samples if is_grounding(sample, shared) and len(sample.instances)]
    idle = sum(len(sample.vocabulary) - len(sample.present_class_ids) for sample in grounding)
    return [f"{idle} names of grounding images without a box: odvg lists phrases by their boxes only"] if idle else []


def _of_objects(found: list[Instances], format: str, holds: Holds, with_masks: bool) -> list[str]:
    said = []
    masked = [instances for instances in found if instances.masks_rle]
    if masked and not with_masks:
        why = f"{format} holds boxes only" if not holds.masks else "left out as asked"
        said.append(f"masks of {sum(map(len, masked))} objects: {why}")
    if masked and with_masks and not holds.boxes_beside_masks:
        moved = np.concatenate([np.abs(_mask_boxes(i) - i.boxes_xyxy_px).max(1) for i in masked])
        count = int((moved > _TOLERANCE_PX).sum())
        if count:
            said.append(f"boxes of {count} objects: they become their masks' bounds, at most {moved.max():.1f} px away")
    if not holds.areas:
        count = sum(int(_other_area(instances, with_masks).sum()) for instances in found)
        if count:
            said.append(f"areas of {count} objects: {format} has none, so they become the {_whose(with_masks)}")
    return said


def _of_crowds(samples: list[Sample], format: str, holds: Holds) -> list[str]:
    count = sum(int(sample.instances.is_crowd.sum()) for sample in samples)
    if not count or holds.crowds:
        return []
    more = ", their classes marked as not exhaustive" if holds.not_exhaustive else ""
    return [f"{count} crowd regions: left out{more}, for {format} would make them single objects"]


def _without_pixels(sample: Sample) -> Sample:
    return sample if isinstance(sample.image, Path) else sample.evolve(image=Path())


def _kept(instances: Instances, holds: Holds) -> Instances:
    return instances if holds.crowds else instances.select(~instances.is_crowd)


def _mask_boxes(instances: Instances) -> np.ndarray:
    """The bounds of masks, xyxy in pixels; the box itself where a mask is empty."""
    boxes = np.asarray(coco_mask.toBbox(list(instances.masks_rle or ())), np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    drawn = (boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True)
    return np.where(drawn, boxes, instances.boxes_xyxy_px)


def _other_area(instances: Instances, with_masks: bool) -> np.ndarray:
    """Which areas differ from those that would be read back."""
    boxes = instances.boxes_xyxy_px
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    if with_masks and instances.masks_rle:
        areas = np.asarray(coco_mask.area(list(instances.masks_rle)), np.float64)
    different: np.ndarray = np.abs(areas - instances.areas_px) > 1e-6 * np.maximum(areas, 1)
    return different


def _whose(with_masks: bool) -> str:
    return "masks' or the boxes'" if with_masks else "boxes'"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more
