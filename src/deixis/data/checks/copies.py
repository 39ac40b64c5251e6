"""Images that occur in a data set more than once, or in training and in validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.checks.images import file_of
from deixis.data.findings import Findings
from deixis.data.pixels.image_hash import ImageHash, duplicate_pairs, groups_of
from deixis.records import Instances, Sample
from deixis.text import listed

_SAME_OBJECT_IOU = 0.5  # of two boxes of one class, one in each copy
_SAME_CORNERS_PX = 1.0
_NAMED = 4


def examine_copies(samples: Sequence[Sample], hashes: Sequence[ImageHash], findings: Findings) -> dict[int, Sample]:
    """The samples that stay, by position: of copies the first, with the objects that it lacks and a later one has."""
    kept = dict(enumerate(samples))
    # By content: the same file under other names, or listed twice.
    first_of: dict[bytes, int] = {}
    for index, hashed in enumerate(hashes):
        first = first_of.setdefault(hashed.digest, index)
        if first != index:
            merged = _merged(kept[first], samples[index])
            added = len(merged.instances) - len(kept[first].instances)
            _report_copy(kept[first], samples[index], added, findings)
            kept[first] = merged
            del kept[index]
    # Near copies are reported and both stay, as nobody knows which one is meant.
    for group in groups_of(hashes):
        different = [index for index in group if index in kept]
        if len(different) > 1:
            others = [Path(file_of(samples[index])).name for index in different[1:]]
            text = f"looks like {listed(others, _NAMED)}"
            findings.add("image_near", file_of(samples[group[0]]), samples[group[0]].source, text)
    return kept


def examine_leaks(
    training: Sequence[tuple[Sample, ImageHash]], validation: Sequence[tuple[Sample, ImageHash]], findings: Findings
) -> set[int]:
    """Positions of the training images that are validation images too; near copies are only reported."""
    # of equal files the first is named
    files = {hashed.digest: file_of(sample) for sample, hashed in reversed(validation)}
    same = {index for index, (_, hashed) in enumerate(training) if hashed.digest in files}
    for index in sorted(same):
        sample, hashed = training[index]
        text = f"is the validation image {files[hashed.digest]}"
        findings.add("leak_same", file_of(sample), sample.source, text, "image removed from training")
    hashes = [hashed for _, hashed in training] + [hashed for _, hashed in validation]
    near: dict[int, set[int]] = defaultdict(set)
    for first, second in duplicate_pairs(hashes):
        if first < len(training) <= second and hashes[first].digest != hashes[second].digest:
            near[second - len(training)].add(first)
    for index, found in sorted(near.items()):
        sample = validation[index][0]
        others = [Path(file_of(training[first][0])).name for first in sorted(found)]
        findings.add(
            "leak_near", file_of(sample), sample.source, f"looks like the training image {listed(others, _NAMED)}"
        )
    return same


def examine_shared_files(training: Sequence[Sample], validation: Sequence[Sample], findings: Findings) -> None:
    """Findings on files that are on both sides, by their paths alone."""
    # Resolved, so that links and `..` do not hide that a file is the same.
    files = {sample.image.resolve(): sample for sample in validation if isinstance(sample.image, Path)}
    for sample in training:
        if isinstance(sample.image, Path) and (other := files.get(sample.image.resolve())) is not None:
            text = f"is the validation image {file_of(other)}"
            findings.add("leak_same", file_of(sample), sample.source, text)


def _report_copy(first: Sample, second: Sample, added: int, findings: Findings) -> None:
    file, other = file_of(second), file_of(first)
    merged = f"merged into {Path(other).name}"
    if file == other:
        findings.add("image_listed_twice", file, second.source, f"is listed as {first.source} too", merged)
    else:
        findings.add("image_repeated", file, second.source, f"is byte for byte {other}", merged)
    if not _annotated_alike(first.instances, second.instances, first, second):
        text = f"its {len(second.instances)} objects are not the {len(first.instances)} of {Path(other).name}"
        fix = f"{added} objects that the first lacks added to it" if added else "its objects left out: none is new"
        findings.add("copies_disagree", file, second.source, text, fix)


def _annotated_alike(one: Instances, other: Instances, first: Sample, second: Sample) -> bool:
    if len(one) != len(other):
        return False
    a, b = (_sorted_rows(instances, sample) for instances, sample in ((one, first), (other, second)))
    return [name for name, _ in a] == [name for name, _ in b] and all(
        np.abs(np.subtract(x, y)).max() <= _SAME_CORNERS_PX for (_, x), (_, y) in zip(a, b, strict=True)
    )


def _sorted_rows(instances: Instances, sample: Sample) -> list[tuple[str, list[float]]]:
    names = [sample.vocabulary.names[c] for c in instances.class_ids.tolist()]
    return sorted(zip(names, instances.boxes_xyxy_px.tolist(), strict=True))


def _merged(first: Sample, second: Sample) -> Sample:
    """The first with the objects of the second that overlap none of their class in it."""
    if first.vocabulary != second.vocabulary or first.size_hw != second.size_hw or not len(second.instances):
        return first
    one, other = first.instances, second.instances
    new = np.ones(len(other), bool)
    if len(one):
        # With 0 for each box: none counts as a crowd, for which pycocotools divides by the detection's area alone.
        overlaps = np.asarray(coco_mask.iou(_xywh(other), _xywh(one), [0] * len(one)))
        same = other.class_ids[:, None] == one.class_ids[None]
        new = ~((overlaps >= _SAME_OBJECT_IOU) & same).any(1)
    added = other.select(new)
    if not len(added):
        return first
    masks = None if one.masks_rle is None or added.masks_rle is None else (*one.masks_rle, *added.masks_rle)
    joined = Instances.build(
        np.concatenate([one.boxes_xyxy_px, added.boxes_xyxy_px]),
        np.concatenate([one.class_ids, added.class_ids]),
        np.concatenate([one.is_crowd, added.is_crowd]),
        areas_px=np.concatenate([one.areas_px, added.areas_px]),
        masks_rle=masks,
    )
    present = frozenset(joined.class_ids.tolist())
    absent = None if first.absent_class_ids is None else first.absent_class_ids - present
    return first.evolve(instances=joined, absent_class_ids=absent)


def _xywh(instances: Instances) -> np.ndarray:
    boxes = instances.boxes_xyxy_px
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
