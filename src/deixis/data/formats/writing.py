"""Data sets to annotation formats, and what a format cannot hold of them, reported before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from deixis.atomic_files import require_new_folder
from deixis.data.formats.placing import ImageMode, check_names, conformed
from deixis.data.formats.recognise import require_known
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.table import WRITTEN
from deixis.data.sets.embedded import records
from deixis.records import Dataset, Instances, Sample
from deixis.text import listed


def write_dataset(dataset: Dataset, folder: Path, format: str, images: ImageMode = "copy", masks: bool = True) -> Path:
    """Write a data set, annotations and images, into a new folder, whole or not at all.

    Args:
        format: a key of `WRITTEN`; `not_kept` lists what it cannot hold.
        images: copy image files, or link to where they are; a picture that is no file is always written.
        masks: write masks where the format has them.

    Returns:
        what to give to `read_dataset` to read it again.

    Raises:
        DataError: an unknown format, a folder that exists, names that no format can hold, or an unreadable image.
    """
    require_known(format, WRITTEN)
    check_names(dataset.vocabulary)
    known = WRITTEN[format]
    if known.write_parts is not None:
        return known.write_parts({"train": dataset}, folder, images, masks)
    assert known.write is not None
    return known.write(dataset, folder, images, masks)


def write_parts(
    parts: Mapping[str, Dataset], folder: Path, format: str, images: ImageMode = "copy", masks: bool = True
) -> dict[str, str]:
    """Write the parts (train, val, test) of a data set: in one folder where the format has splits, else in one each.

    Returns:
        what to give to `read_dataset` to read each part again.

    Raises:
        DataError: as `write_dataset`; a folder that is not empty.
    """
    require_new_folder(folder)
    require_known(format, WRITTEN)
    together = WRITTEN[format].write_parts
    if together is None:
        return {
            part: str(write_dataset(dataset, folder / part, format, images, masks)) for part, dataset in parts.items()
        }
    check_names(next(iter(parts.values())).vocabulary)
    written = together(parts, folder, images, masks)
    return {part: f"{written}#{part}" for part in parts}


_SOME = 5
_TOLERANCE_PX = 1e-3


def not_kept(dataset: Dataset, format: str, masks: bool = True) -> list[str]:
    """One line for each kind of thing that writing a data set in a format leaves out or changes; none if it keeps all.

    Args:
        format: a key of `WRITTEN`.
        masks: whether masks are to be written where the format has them.
    """
    known = WRITTEN[format]
    holds = known.holds
    # Generated scenes carry their pixels, and the list keeps all samples.
    samples = [_without_pixels(sample) for sample in records(dataset)]
    return list(
        chain(
            _of_vocabulary(dataset, samples, format, holds),
            _of_images(dataset, samples, known),
            _of_objects([_kept(sample.instances, holds) for sample in samples], format, holds, masks and holds.masks),
            _of_crowds(samples, format, holds),
        )
    )


def _of_vocabulary(dataset: Dataset, samples: list[Sample], format: str, holds: Holds) -> list[str]:
    lines = []
    names, ids = dataset.vocabulary.names, dataset.vocabulary.category_ids
    if not holds.category_ids and ids != tuple(range(1, len(ids) + 1)):
        lines.append(f"category ids: {format} numbers classes by position")
    if not holds.all_names:
        used = {names[i] for s in samples for i in _kept(conformed(s, dataset.vocabulary).instances, holds).class_ids}
        unused = [name for name in names if name not in used]
        if unused:
            lines.append(
                f"names without objects: {listed(unused, _SOME)}; {format} lists classes by their objects only"
            )
        if [name for name in names if name in used] != sorted(used):
            lines.append(f"order of the names: {format} has none, so they come back sorted")
    if not holds.underscores and any("_" in name for name in names):
        lines.append(f"'_' in names: {format} writes it for a blank, so it comes back as one")
    return lines


def _of_images(dataset: Dataset, samples: list[Sample], known: Format) -> list[str]:
    lines = []
    format, holds = known.name, known.holds
    own = sum(sample.vocabulary.names != dataset.vocabulary.names for sample in samples)
    if own and not holds.own_names:
        lines.append(
            f"names of {own} images of their own: {format} has one vocabulary, here of {len(dataset.vocabulary)}"
        )
        # What follows is counted as it will be written.
        samples = [conformed(sample, dataset.vocabulary) for sample in samples]
    if not holds.image_ids and [sample.image_id for sample in samples] != list(range(1, len(samples) + 1)):
        lines.append(f"image ids: {format} numbers images by position or names them")
    predicted = sorted({sample.model_version for sample in samples if sample.model_version})
    if predicted and not holds.model_version:
        lines.append(f"model that found the objects: {listed(predicted, _SOME)}")
    captions = sum(bool(sample.caption) for sample in samples)
    if captions and not holds.captions:
        lines.append(f"captions of {captions} images")
    absent = sum(
        sample.absent_class_ids is not None and not (holds.unknown and _nothing_known(sample)) for sample in samples
    )
    if absent and not holds.absent:
        lines.append(f"lists of classes looked for in {absent} images: {format} takes every class as looked for")
    partly = sum(bool(sample.not_exhaustive_class_ids) for sample in samples)
    if partly and not holds.not_exhaustive:
        lines.append(f"classes not annotated exhaustively in {partly} images: {format} takes all objects as annotated")
    if known.also_not_kept is not None:
        lines += known.also_not_kept(dataset, samples)
    return lines


def _nothing_known(sample: Sample) -> bool:
    return sample.absent_class_ids == frozenset() and not len(sample.instances)


def _of_objects(found: list[Instances], format: str, holds: Holds, with_masks: bool) -> list[str]:
    lines = []
    masked = [instances for instances in found if instances.masks_rle]
    if masked and not with_masks:
        why = f"{format} holds boxes only" if not holds.masks else "left out as asked"
        lines.append(f"masks of {sum(map(len, masked))} objects: {why}")
    if masked and with_masks and not holds.boxes_beside_masks:
        moved = np.concatenate([np.abs(_mask_boxes(i) - i.boxes_xyxy_px).max(1) for i in masked])
        count = int((moved > _TOLERANCE_PX).sum())
        if count:
            lines.append(
                f"boxes of {count} objects: they become their masks' bounds, at most {moved.max():.1f} px away"
            )
    scored = sum(len(instances) for instances in found if instances.scores is not None)
    if scored and not holds.scores:
        lines.append(f"scores of {scored} objects: {format} has none, so detections become annotations")
    if not holds.areas:
        count = sum(int(_other_area(instances, with_masks).sum()) for instances in found)
        if count:
            lines.append(f"areas of {count} objects: {format} has none, so they become the {_whose(with_masks)}")
    return lines


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
