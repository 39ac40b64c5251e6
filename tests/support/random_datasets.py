"""Random small data sets, within what an annotation format holds or beyond it; and when two are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deixis.data.formats.table import WRITTEN
from deixis.data.pixels.images import load
from deixis.records import Dataset, Instances, Sample, SampleList, Vocabulary

_LISTED = ("coco", "lvis", "voc", "yolo", "odvg", "openimages", "labelme", "parquet")
FORMATS = (*_LISTED, *(name for name in WRITTEN if name not in _LISTED))

# What each format's own specification has room for, written down apart from the package's table.
WITH_MASKS = {"coco", "lvis", "yolo", "labelme"}
BOX_IS_THE_MASKS = {"yolo", "labelme"}
WITH_AREAS = {"coco", "lvis", "parquet"}
WITH_CROWDS = {"coco", "openimages", "labelme", "parquet"}
WITH_IMAGE_IDS = {"coco", "lvis", "parquet"}
WITH_CATEGORY_IDS = {"coco", "lvis"}
WITH_SCORES = {"coco", "lvis"}
WITH_MODEL_VERSION: set[str] = set()
WITH_ABSENT = {"lvis", "openimages"}
ONLY_USED_NAMES = {"voc"}

# Of formats that are not listed above: what their records claim, which the round trips then try.
for _name in FORMATS[len(_LISTED) :]:
    _holds = WRITTEN[_name].holds
    for _set, _claimed in (
        (WITH_MASKS, _holds.masks),
        (BOX_IS_THE_MASKS, _holds.masks and not _holds.boxes_beside_masks),
        (WITH_AREAS, _holds.areas),
        (WITH_CROWDS, _holds.crowds),
        (WITH_IMAGE_IDS, _holds.image_ids),
        (WITH_CATEGORY_IDS, _holds.category_ids),
        (WITH_ABSENT, _holds.absent),
        (WITH_SCORES, _holds.scores),
        (WITH_MODEL_VERSION, _holds.model_version),
        (ONLY_USED_NAMES, not _holds.all_names),
    ):
        if _claimed:
            _set.add(_name)

# Of formats that are only read, and are written by the tests themselves; and of layouts that our writers do not use.
WITH_MASKS.add("supervisely")
BOX_IS_THE_MASKS.add("supervisely")
WITH_IMAGE_IDS.add("predictions")
for _held in (WITH_AREAS, WITH_CROWDS, WITH_IMAGE_IDS, WITH_CATEGORY_IDS, WITH_ABSENT):
    _held.add("shards")
ONLY_USED_NAMES |= {"predictions", "fiftyone samples", "via table", "label_studio min"}

NAMES = st.text(st.sampled_from("abcXYZ019é中 .,:;'\"/#&<>(){}[]%!?*|\\-+=~@$^`"), min_size=1, max_size=8)
SHARES = st.floats(0, 1, allow_subnormal=False)


@st.composite
def datasets(draw: st.DrawFn, format: str | None = None, size_hw: tuple[int, int] | None = None) -> SampleList:
    """A data set that a format holds whole; without a format, one of everything; of images of one size where given."""

    def may(formats: set[str]) -> bool:
        return (format is None or format in formats) and draw(st.booleans())

    names = draw(st.lists(NAMES.map(str.strip).filter(bool), min_size=1, max_size=4, unique_by=str.casefold))
    if format in ONLY_USED_NAMES:
        names.sort()
    ids = range(1, len(names) + 1)
    if may(WITH_CATEGORY_IDS):
        ids = draw(st.lists(st.integers(1, 999), min_size=len(names), max_size=len(names), unique=True))
    vocabulary = Vocabulary(tuple(names), tuple(ids))
    count = draw(st.integers(1, 3))
    image_ids = list(range(1, count + 1))
    if may(WITH_IMAGE_IDS):
        image_ids = draw(st.lists(st.integers(1, 999), min_size=count, max_size=count, unique=True))
    sizes = [size_hw or (draw(st.integers(1, 12)), draw(st.integers(1, 40))) for _ in image_ids]
    samples = [
        _sample(draw, vocabulary, image_id, size, format, may) for image_id, size in zip(image_ids, sizes, strict=True)
    ]
    if format in ONLY_USED_NAMES:  # which knows its classes by their objects
        everything = Instances.build([[0, 0, 1, 1]] * len(names), range(len(names)))
        samples[0] = samples[0].evolve(instances=everything)
    return SampleList(tuple(samples), vocabulary)


@st.composite
def painted(draw: st.DrawFn, crowds: bool = False) -> SampleList:
    """A data set whose objects have masks, of which no two share a pixel."""
    names = draw(st.lists(NAMES.map(str.strip).filter(bool), min_size=1, max_size=4, unique_by=str.casefold))
    vocabulary = Vocabulary(tuple(names))
    samples = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        size_hw = (draw(st.integers(16, 24)), draw(st.integers(24, 40)))
        ids = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, draw(st.integers(1, 4)), size_hw)
        masks = [coco_mask.encode(np.asfortranarray(ids == one, np.uint8)) for one in np.unique(ids[ids > 0])]
        boxes = np.asarray(coco_mask.toBbox(masks), np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances.build(
            boxes,
            [draw(st.integers(0, len(names) - 1)) for _ in masks],
            [crowds and draw(st.booleans()) for _ in masks],
            areas_px=coco_mask.area(masks),
            masks_rle=masks or None,
        )
        pixels = np.zeros((*size_hw, 3), np.uint8)
        samples.append(Sample(pixels, size_hw, instances, vocabulary, number, f"image {number}"))
    return SampleList(tuple(samples), vocabulary)


def _sample(
    draw: st.DrawFn, vocabulary: Vocabulary, image_id: int, size_hw: tuple[int, int], format: str | None, may: Any
) -> Sample:
    pixels = np.full((*size_hw, 3), image_id % 256, np.uint8)
    pixels[0, 0] = 255  # so that turned or mirrored pictures differ
    instances = _instances(draw, len(vocabulary), size_hw, format, may)
    sample = Sample(pixels, size_hw, instances, vocabulary, image_id, f"image {image_id}")
    absent = sorted(sample.known_absent_class_ids)
    if absent and may(WITH_ABSENT):
        looked_for = frozenset(draw(st.lists(st.sampled_from(absent), max_size=len(absent) - 1, unique=True)))
        sample = sample.evolve(absent_class_ids=looked_for)
    if len(instances) and may(WITH_SCORES):
        scores = [draw(SHARES) for _ in range(len(instances))]
        sample = sample.evolve(instances=replace(instances, scores=np.array(scores)))
        if may(WITH_MODEL_VERSION):
            sample = sample.evolve(model_version="detector v1")
    if len(instances) and may({"lvis"}):
        sample = sample.evolve(not_exhaustive_class_ids=sample.present_class_ids)
    return sample


def _instances(draw: st.DrawFn, classes: int, size_hw: tuple[int, int], format: str | None, may: Any) -> Instances:
    count = draw(st.integers(0, 3))
    class_ids = [draw(st.integers(0, classes - 1)) for _ in range(count)]
    crowd = [may(WITH_CROWDS) for _ in range(count)]
    boxes = [_box(draw, size_hw) for _ in range(count)]
    masks = None
    areas = None
    if count and may(WITH_MASKS):
        masks = [coco_mask.encode(np.asfortranarray(_bitmap(draw, size_hw))) for _ in range(count)]
        areas = coco_mask.area(masks).astype(np.float64)
        if format in BOX_IS_THE_MASKS:
            boxes = coco_mask.toBbox(masks).tolist()
            boxes = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    if may(WITH_AREAS):
        areas = [draw(st.floats(0, 1e4)) for _ in range(count)]
    return Instances.build(boxes, class_ids, crowd, areas_px=areas, masks_rle=masks)


def _box(draw: st.DrawFn, size_hw: tuple[int, int]) -> list[float]:
    """A box of some width and height inside the image, on its edges too."""
    height, width = size_hw
    x, y = draw(SHARES) * (width - 0.5), draw(SHARES) * (height - 0.5)
    return [x, y, x + 0.25 + draw(SHARES) * (width - x - 0.25), y + 0.25 + draw(SHARES) * (height - y - 0.25)]


def _bitmap(draw: st.DrawFn, size_hw: tuple[int, int]) -> np.ndarray:
    bitmap = np.random.default_rng(draw(st.integers(0, 2**32))).random(size_hw) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    bitmap[-1, -1] = True
    return bitmap.astype(np.uint8)


def assert_same(one: Dataset, other: Dataset) -> None:
    """The same names, images and objects, in the same order; paths and messages may differ."""
    assert one.vocabulary == other.vocabulary
    assert len(one) == len(other)
    for index in range(len(one)):
        assert_same_sample(load(one[index]), load(other[index]))


def assert_same_sample(one: Sample, other: Sample) -> None:
    """The same in everything but `source`."""
    np.testing.assert_array_equal(np.asarray(one.image), np.asarray(other.image))
    assert_same_annotations(one, other)


def assert_same_annotations(one: Sample, other: Sample) -> None:
    """The same in everything but `image` and `source`."""
    assert one.size_hw == other.size_hw
    assert one.image_id == other.image_id
    assert one.vocabulary == other.vocabulary
    assert one.absent_class_ids == other.absent_class_ids
    assert one.not_exhaustive_class_ids == other.not_exhaustive_class_ids
    assert one.caption == other.caption
    assert one.model_version == other.model_version
    assert_same_instances(one.instances, other.instances)


def assert_same_instances(one: Instances, other: Instances) -> None:
    """Boxes and areas to rounding, all else exactly."""
    np.testing.assert_allclose(one.boxes_xyxy_px, other.boxes_xyxy_px, atol=1e-9)
    np.testing.assert_array_equal(one.class_ids, other.class_ids)
    np.testing.assert_array_equal(one.is_crowd, other.is_crowd)
    np.testing.assert_allclose(one.areas_px, other.areas_px, rtol=1e-9, atol=1e-6)
    assert (one.scores is None) == (other.scores is None)
    np.testing.assert_allclose(
        () if one.scores is None else one.scores, () if other.scores is None else other.scores, atol=1e-9
    )
    assert (one.masks_rle is None) == (other.masks_rle is None)
    for mine, theirs in zip(one.masks_rle or (), other.masks_rle or (), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(mine), coco_mask.decode(theirs))
