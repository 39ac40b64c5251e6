"""cIoU and gIoU: by hand, against plain NumPy, and at the edges (empty masks)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from deixis.errors import DataError
from deixis.evaluation.refer_iou import ReferIoU, count_objects, evaluate_segmentations
from deixis.records import Rle
from deixis.refer_records import Expression, ReferSample, Segmentation

SIZE_HW = (20, 30)


def rle(bitmap: np.ndarray) -> Rle:
    return coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))


def box(x0: int, y0: int, x1: int, y1: int, size_hw: tuple[int, int] = SIZE_HW) -> Rle:
    bitmap = np.zeros(size_hw, np.uint8)
    bitmap[y0:y1, x0:x1] = 1
    return rle(bitmap)


NOTHING = box(0, 0, 0, 0)


def sample(*expressions: Expression, **more: Any) -> ReferSample:
    return ReferSample(Path("a.jpg"), more.pop("size_hw", SIZE_HW), expressions, **{"source": "a", **more})


def measured(pairs: list[tuple[tuple[Rle, ...], Rle]]) -> Any:
    """Metrics of one phrase an image."""
    truth = [sample(Expression(("it",), wanted), image_id=i) for i, (wanted, _) in enumerate(pairs)]
    return evaluate_segmentations(truth, [[Segmentation("it", p, 1.0, image_id=i)] for i, (_, p) in enumerate(pairs)])


def test_by_hand() -> None:
    half = (box(0, 0, 10, 10),), box(0, 5, 10, 15)  # 50 of 150
    whole = (box(0, 0, 2, 2),), box(0, 0, 2, 2)  # 4 of 4
    found = measured([half, whole])
    assert found.ciou == 54 / 154
    assert found.giou == pytest.approx((50 / (150 + 1e-5) + 4 / (4 + 1e-5)) / 2, abs=1e-12)
    assert found.giou < (1 / 3 + 1) / 2, "the epsilon of the definition is there"
    assert (found.phrases, found.images, found.present_accuracy) == (2, 2, 1.0)
    assert math.isnan(found.absent_accuracy)


@pytest.mark.parametrize("wanted", [(), (NOTHING,)])
def test_both_empty_is_right(wanted: tuple[Rle, ...]) -> None:
    found = measured([(wanted, NOTHING)])
    assert (found.giou, found.absent_accuracy) == (1.0, 1.0)
    assert math.isnan(found.ciou)
    assert math.isnan(found.present_accuracy)
    assert "cIoU" not in found.as_dict()
    assert found.as_dict()["by_sizes"] == {"absent": {"gIoU": 1.0, "phrases": 1}}


def test_one_empty_is_wrong() -> None:
    invented = measured([((), box(0, 0, 10, 10))])
    assert (invented.giou, invented.ciou, invented.absent_accuracy) == (0.0, 0.0, 0.0)
    missed = measured([((box(0, 0, 10, 10),), NOTHING)])
    assert (missed.giou, missed.ciou, missed.present_accuracy) == (0.0, 0.0, 0.0)


def test_an_invented_mask_lowers_the_ciou_of_all() -> None:
    right = (box(0, 0, 10, 10),), box(0, 0, 10, 10)
    assert measured([right, ((), box(0, 0, 10, 10))]).ciou == 0.5
    assert measured([right, ((), NOTHING)]).ciou == 1.0


def test_nothing_measured() -> None:
    found = evaluate_segmentations([], [])
    assert found.phrases == 0
    assert math.isnan(found.giou)
    assert found.as_dict() == {
        **{f"by_{name}": {} for name in ("words", "sizes", "objects", "tags")},
        "phrases": 0,
        "images": 0,
    }


def test_the_target_is_the_union_of_the_objects_meant() -> None:
    overlapping = (box(0, 0, 10, 10), box(5, 0, 15, 10))
    found = measured([(overlapping, box(0, 0, 15, 10))])
    assert found.ciou == 1.0, "the overlap counts once"


BITMAPS = arrays(np.uint8, (4, 5), elements=st.integers(0, 1))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.lists(BITMAPS, max_size=3), BITMAPS), min_size=1, max_size=4))
def test_equals_plain_numpy(pairs: list[tuple[list[np.ndarray], np.ndarray]]) -> None:
    truth = [
        sample(Expression(("it",), tuple(map(rle, wanted))), image_id=i, size_hw=(4, 5))
        for i, (wanted, _) in enumerate(pairs)
    ]
    found = evaluate_segmentations(
        truth, [[Segmentation("it", rle(p), 1, image_id=i)] for i, (_, p) in enumerate(pairs)]
    )
    intersections, unions, ious = 0, 0, []
    for wanted, predicted in pairs:
        target = np.zeros((4, 5), bool)
        for bitmap in wanted:
            target |= bitmap > 0
        i, u = (target & (predicted > 0)).sum(), (target | (predicted > 0)).sum()
        intersections, unions = intersections + i, unions + u
        ious.append(1.0 if u == 0 else i / (u + 1e-5))
    assert found.giou == pytest.approx(np.mean(ious))
    if unions:
        assert found.ciou == pytest.approx(intersections / unions)


def test_groups() -> None:
    size_hw = (200, 200)
    big, tiny = box(0, 0, 150, 150, size_hw), box(160, 160, 170, 170, size_hw)
    medium = box(0, 160, 96, 200, size_hw)
    picture = sample(
        Expression(("wall", "the large white wall behind"), (big,), tags=("relation",)),
        Expression(("a b c d e f g h i j",), (tiny,), tags=("relation", "unseen")),
        Expression(("the low one",), (medium,)),
        Expression(("dog",), ()),
        Expression((), (box(0, 0, 3, 3, size_hw),)),  # no sentence: an object of the image, but no phrase
        size_hw=size_hw,
    )
    masks = [big, box(0, 0, 0, 0, size_hw), tiny, medium, tiny]
    texts = [text for expression in picture.expressions for text in expression.texts]
    found = evaluate_segmentations([picture], [[Segmentation(t, m, 1.0) for t, m in zip(texts, masks, strict=True)]])
    assert {key: group.phrases for key, group in found.words.items()} == {"1-2": 2, "3-5": 2, "10+": 1}
    assert {key: group.phrases for key, group in found.sizes.items()} == {
        "small": 1,
        "medium": 1,
        "large": 2,
        "absent": 1,
    }
    assert list(found.sizes) == ["small", "medium", "large", "absent"]
    assert {key: group.phrases for key, group in found.objects.items()} == {"4-9": 5}
    assert list(found.tags) == ["relation", "unseen"]
    assert found.tags["relation"].phrases == 3
    assert found.tags["relation"].giou == pytest.approx(2 / 3, abs=1e-6)
    assert found.sizes["large"].ciou == 0.5
    assert (found.absent_accuracy, found.present_accuracy) == (0.0, 0.75)
    assert (found.phrases, found.images) == (5, 1)
    assert found.as_dict()["by_sizes"]["large"] == pytest.approx({"gIoU": 0.5, "cIoU": 0.5, "phrases": 2}, abs=1e-6)


@pytest.mark.parametrize(("area", "group"), [(1023, "small"), (1024, "medium"), (9216, "medium"), (9217, "large")])
def test_sizes_change_where_cocos_do(area: int, group: str) -> None:
    bitmap = np.zeros(200 * 200, np.uint8)
    bitmap[:area] = 1
    mask = rle(bitmap.reshape(200, 200))
    truth = sample(Expression(("it",), (mask,)), size_hw=(200, 200))
    assert list(evaluate_segmentations([truth], [[Segmentation("it", mask, 1.0)]]).sizes) == [group]


def test_images_without_an_object_have_none() -> None:
    nothing, one = sample(Expression(("dog",), ())), sample(Expression(("cat",), (box(0, 0, 3, 3),)))
    empty = box(0, 0, 0, 0)
    answers = [[Segmentation(text, empty, 1.0)] for text in ("dog", "cat")]
    assert {k: one.phrases for k, one in evaluate_segmentations([nothing, one], answers).objects.items()} == {
        "0": 1,
        "1": 1,
    }


def test_objects_named_twice_count_once() -> None:
    one, other = box(0, 0, 3, 3), box(5, 5, 9, 9)
    as_text = {"size": list(SIZE_HW), "counts": one["counts"].decode()}
    assert count_objects(sample(Expression(("a",), (one,)), Expression(("b",), (as_text, other)))) == 2


def test_accumulated_by_hand_equals_the_whole() -> None:
    truth = sample(Expression(("it", "that"), (box(0, 0, 10, 10),)))
    sums = ReferIoU()
    for text in ("it", "that"):
        sums.add(truth, truth.expressions[0], text, predicted=box(0, 0, 5, 10))
    whole = evaluate_segmentations([truth], [[Segmentation(t, box(0, 0, 5, 10), 1.0) for t in ("it", "that")]])
    assert sums.result() == sums.result()
    assert (sums.result().ciou, sums.result().phrases) == (whole.ciou, 2)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "segmentations of 0 images for 1"),
        ([[]], "0 segmentations for 1 sentences"),
        ([[Segmentation("other", NOTHING, 1.0)]], "is of 'other' in image 0, expected 'it' in image 0"),
        ([[Segmentation("it", NOTHING, 1.0, image_id=3)]], "is of 'it' in image 3, expected 'it' in image 0"),
        ([[Segmentation("it", box(0, 0, 1, 1, (4, 4)), 1.0)]], r"mask of 'it' is \(4, 4\), the image \(20, 30\)"),
    ],
)
def test_what_does_not_belong_together(found: list[list[Segmentation]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_segmentations([sample(Expression(("it",), ()))], found)
