"""What changed between two versions of annotations: images by their files, objects by their boxes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from pycocotools import mask as coco_mask

from deixis.data.reading import require_regular
from deixis.data.sets.embedded import picture_bytes, records
from deixis.records import Dataset, Sample

Kind = Literal["added", "gone", "moved", "renamed"]
KINDS: tuple[Kind, ...] = ("added", "gone", "moved", "renamed")
SAME_OBJECT_IOU = 0.5
SAME_PLACE_PX = 1.0
SAME_MASK_IOU = 0.99


@dataclass(frozen=True)
class Change:
    """One object that is not as it was; `before` and `after` are its position in its image, None where it is not."""

    kind: Kind
    before: int | None
    after: int | None


@dataclass(frozen=True)
class ImagePair:
    """One image of both versions: its positions in them, and its objects that changed."""

    before: int
    after: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Difference:
    """Two versions compared.

    Attributes:
        pairs: the images of both.
        added, gone: positions in the new version of images that it adds, and in the old one of those that it lacks.
    """

    pairs: tuple[ImagePair, ...]
    added: tuple[int, ...]
    gone: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.gone or any(pair.changes for pair in self.pairs))


def difference(before: Dataset, after: Dataset) -> Difference:
    """Compare two versions; images are the same by their file names, or else by what their files hold.

    Raises:
        OSError: an image file that has to be compared cannot be read.
    """
    pairs, gone, added = _image_pairs(before, after)
    old, new = list(records(before)), list(records(after))
    compared = [ImagePair(i, j, changes(old[i], new[j])) for i, j in pairs]
    return Difference(tuple(compared), tuple(added), tuple(gone))


def changes(before: Sample, after: Sample) -> tuple[Change, ...]:
    """The objects of one image that changed, in the order of the new version, then those that are gone.

    Two boxes are one object from an IoU of 0.5 on, of one class rather than of two; the image may have been resized.
    """
    old, new = before.instances, after.instances
    scale = np.tile(np.divide(before.size_hw, after.size_hw)[::-1], 2)  # (x, y, x, y)
    new_boxes = new.boxes_xyxy_px * scale
    matched = dict(_matches(before, after, new_boxes))
    found: list[Change] = []
    for j in range(len(new)):
        if j not in matched:
            found.append(Change("added", None, j))
            continue
        i = matched[j]
        if _name(before, i) != _name(after, j):
            found.append(Change("renamed", i, j))
        elif np.abs(old.boxes_xyxy_px[i] - new_boxes[j]).max() > SAME_PLACE_PX or _redrawn(before, i, after, j):
            found.append(Change("moved", i, j))
    found += [Change("gone", i, None) for i in range(len(old)) if i not in matched.values()]
    return tuple(found)


def class_changes(before: Dataset, after: Dataset, found: Difference) -> dict[str, Counter[str]]:
    """By class: objects `before` and `after`, and how many were added, gone, moved, renamed from it and to it."""
    old, new = list(records(before)), list(records(after))
    names = dict.fromkeys([*before.vocabulary.names, *after.vocabulary.names])
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for key, samples in (("before", old), ("after", new)):
        for sample in samples:
            for i in range(len(sample.instances)):
                counts.setdefault(_name(sample, i), Counter())[key] += 1
    for key, positions, samples in (("gone", found.gone, old), ("added", found.added, new)):
        for position in positions:
            for i in range(len(samples[position].instances)):
                counts[_name(samples[position], i)][key] += 1
    for pair in found.pairs:
        for change in pair.changes:
            was = None if change.before is None else _name(old[pair.before], change.before)
            now = None if change.after is None else _name(new[pair.after], change.after)
            if was is not None and now is not None and was != now:
                counts[was]["renamed from"] += 1
                counts[now]["renamed to"] += 1
            else:
                counts[str(was if now is None else now)][change.kind] += 1
    return counts


def renamings(before: Dataset, after: Dataset, found: Difference) -> Counter[tuple[str, str]]:
    """How many objects went from one class to another."""
    old, new = list(records(before)), list(records(after))
    return Counter(
        (_name(old[pair.before], change.before), _name(new[pair.after], change.after))
        for pair in found.pairs
        for change in pair.changes
        if change.kind == "renamed" and change.before is not None and change.after is not None
    )


def image_name(sample: Sample) -> str:
    """The name of a sample's file; of a picture that is none, where it was read."""
    return sample.image.name if isinstance(sample.image, Path) else sample.source or str(sample.image_id)


def _name(sample: Sample, index: int) -> str:
    return sample.vocabulary.names[int(sample.instances.class_ids[index])]


def _image_pairs(before: Dataset, after: Dataset) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """(pairs of positions, those only before, those only after)."""
    pairs: list[tuple[int, int]] = []
    left, right = list(range(len(before))), list(range(len(after)))
    for depth in (2, 1):  # with the folder first: names may occur in several
        old, new = _by_name(before, left, depth), _by_name(after, right, depth)
        found = [(i, new[name]) for name, i in old.items() if name in new]
        pairs += found
        left = sorted(set(left) - {i for i, _ in found})
        right = sorted(set(right) - {j for _, j in found})
    if left and right:
        # Reversed: of equal files the first is paired.
        digests = {_digest(after, j): j for j in reversed(right)}
        for i in left:
            # `pop`: each of several equal files is paired once.
            j = digests.pop(_digest(before, i), None)
            if j is not None:
                pairs.append((i, j))
    one, other = {i for i, _ in pairs}, {j for _, j in pairs}
    return sorted(pairs), [i for i in left if i not in one], [j for j in right if j not in other]


def _by_name(dataset: Dataset, positions: Sequence[int], depth: int) -> dict[str, int]:
    """Positions by the ends of their paths; ends that several share are left out."""
    samples = list(records(dataset))
    names = {
        i: "/".join(Path(image_name(s)).parts if not isinstance(s.image, Path) else s.image.parts[-depth:])
        for i in positions
        for s in [samples[i]]
    }
    often = Counter(names.values())
    return {name: i for i, name in names.items() if often[name] == 1}


def _digest(dataset: Dataset, index: int) -> bytes:
    content = picture_bytes(dataset, index)
    if content is None:
        image = dataset[index].image
        if isinstance(image, Path):
            require_regular(image)
            content = image.read_bytes()
        else:
            content = image.tobytes()
    return hashlib.sha256(content).digest()


def _matches(before: Sample, after: Sample, new_boxes: Float[np.ndarray, "n 4"]) -> Iterator[tuple[int, int]]:
    """(position after, position before) of objects that are the same, each once."""
    old_boxes = before.instances.boxes_xyxy_px
    if not len(old_boxes) or not len(new_boxes):
        return
    overlaps = np.asarray(coco_mask.iou(_xywh(new_boxes), _xywh(old_boxes), [0] * len(old_boxes)))
    same = np.array(
        [[_name(after, j) == _name(before, i) for i in range(len(old_boxes))] for j in range(len(new_boxes))]
    )
    likely = overlaps + 0.5 * same  # an equal name counts as much as 0.5 of IoU
    order = sorted(np.argwhere(overlaps >= SAME_OBJECT_IOU).tolist(), key=lambda place: -likely[place[0], place[1]])
    taken_new, taken_old = set[int](), set[int]()
    for j, i in order:
        if j not in taken_new and i not in taken_old:
            taken_new.add(j)
            taken_old.add(i)
            yield j, i


def _redrawn(before: Sample, i: int, after: Sample, j: int) -> bool:
    """Whether both have masks, in one size, and these differ."""
    old, new = before.instances.masks_rle, after.instances.masks_rle
    if old is None or new is None or before.size_hw != after.size_hw:
        return False
    return float(coco_mask.iou([old[i]], [new[j]], [0])[0, 0]) < SAME_MASK_IOU


def _xywh(boxes_xyxy_px: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    return np.concatenate([boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]], axis=1)
