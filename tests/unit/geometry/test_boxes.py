"""Boxes: conversions, overlap and clipping, the edges first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from deixis.geometry.boxes import (
    box_area,
    box_iou,
    cxcywh_to_xyxy,
    generalized_box_iou,
    paired_generalized_box_iou,
)
from deixis.geometry.pixel_boxes import clip_boxes, denormalise_boxes, normalise_boxes

SIZE_HW = (80, 200)


def random_boxes_px(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 80, (2, count, 2)), axis=0)
    return np.concatenate([corners[0], corners[1]], axis=1)


def test_no_boxes_stay_no_boxes():
    nothing, some = torch.zeros(0, 4), torch.rand(3, 4)
    assert cxcywh_to_xyxy(nothing).shape == (0, 4)
    assert box_iou(nothing, some).shape == (0, 3)
    assert generalized_box_iou(some, nothing).shape == (3, 0)
    assert paired_generalized_box_iou(nothing, nothing).shape == (0,)
    for function in (clip_boxes, normalise_boxes, denormalise_boxes):
        assert function(np.zeros((0, 4)), SIZE_HW).shape == (0, 4)


def test_a_10_by_40_box_keeps_width_before_height():
    box = np.array([[10.0, 20.0, 20.0, 60.0]])
    assert cxcywh_to_xyxy(torch.tensor([[15.0, 40, 10, 40]])).tolist() == box.tolist()
    assert box_area(torch.tensor(box)).tolist() == [400]
    assert normalise_boxes(box, SIZE_HW).tolist() == [[15 / 200, 40 / 80, 10 / 200, 40 / 80]]
    assert denormalise_boxes(normalise_boxes(box, SIZE_HW), SIZE_HW) == pytest.approx(box)


def test_conversions_are_inverse_and_numpy_agrees_with_torch():
    boxes = random_boxes_px(50)
    normalised = normalise_boxes(boxes, SIZE_HW)
    assert denormalise_boxes(normalised, SIZE_HW) == pytest.approx(boxes)
    in_torch = cxcywh_to_xyxy(torch.tensor(normalised)) * torch.tensor([200.0, 80, 200, 80])
    assert in_torch.numpy() == pytest.approx(boxes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_functions_keep_the_dtype(dtype):
    boxes = random_boxes_px(2).astype(dtype)
    for function in (clip_boxes, normalise_boxes, denormalise_boxes):
        assert function(boxes, SIZE_HW).dtype == dtype


def test_clip_cuts_at_width_and_height_and_leaves_no_area_outside():
    boxes = np.array([[-5.0, -6.0, 300.0, 90.0], [210.0, 10.0, 220.0, 50.0], [1.0, 2.0, 11.0, 42.0]])
    clipped = clip_boxes(boxes, SIZE_HW)
    assert clipped.tolist() == [[0, 0, 200, 80], [200, 10, 200, 50], [1, 2, 11, 42]]
    assert box_area(torch.tensor(clipped)).tolist() == [16000, 0, 400]
    assert boxes[0, 0] == -5  # the input is not changed


def test_iou_equals_pycocotools():
    a, b = random_boxes_px(20, 1), random_boxes_px(30, 2)

    def to_xywh(boxes: np.ndarray) -> np.ndarray:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    expected = coco_mask.iou(to_xywh(a), to_xywh(b), np.zeros(len(b)))
    assert (expected > 0.1).any()
    assert box_iou(torch.tensor(a), torch.tensor(b)).numpy() == pytest.approx(expected, abs=1e-9)


def test_giou_by_hand():
    upright, lying = torch.tensor([[15.0, 0, 25, 40]]), torch.tensor([[0.0, 15, 40, 25]])
    apart = torch.tensor([[100.0, 0, 110, 40]])
    pairwise = generalized_box_iou(upright, torch.cat([upright, lying, apart]))
    assert pairwise[0].tolist() == pytest.approx([1, 100 / 700 - 900 / 1600, -(95 * 40 - 800) / (95 * 40)])


def test_paired_is_the_diagonal_and_batches_are_independent():
    a, b = torch.tensor(random_boxes_px(6, 3)).view(2, 3, 4), torch.tensor(random_boxes_px(6, 4)).view(2, 3, 4)
    batched = generalized_box_iou(a, b)
    assert batched.shape == (2, 3, 3)
    for one, first, second in zip(batched, a, b, strict=True):
        assert torch.equal(one, generalized_box_iou(first, second))
    assert torch.equal(paired_generalized_box_iou(a, b), batched.diagonal(dim1=1, dim2=2))


DEGENERATE = {
    "a point": [0.5, 0.5, 0.0, 0.0],
    "a line across": [0.5, 0.5, 0.3, 0.0],
    "a line down": [0.5, 0.5, 0.0, 0.3],
    "a millionth": [0.5, 0.5, 1e-7, 1e-7],
    "outside": [7.0, -7.0, 0.1, 0.4],
    "inverted": [0.5, 0.5, -0.2, 0.1],
    "ordinary": [0.5, 0.5, 0.1, 0.4],
}


@pytest.mark.parametrize("first", DEGENERATE)
@pytest.mark.parametrize("second", DEGENERATE)
def test_degenerate_boxes_have_a_finite_giou_and_gradient(first, second):
    a = torch.tensor([DEGENERATE[first]], requires_grad=True)
    giou = paired_generalized_box_iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(torch.tensor([DEGENERATE[second]])))
    giou.sum().backward()
    assert -1 - 1e-6 <= giou.item() <= 1 + 1e-6
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() < 1e8  # large is right for small boxes; squares of it must still be finite


def test_the_guard_does_not_bias_small_boxes():
    """One pixel in a 4,000 pixel image has a normalised area of 6e-8; an epsilon of 1e-6 in the divisor shows."""
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0]]) / 4000
    b = torch.tensor([[0.0, 0.0, 1.0, 2.0]]) / 4000
    assert box_iou(a, b).item() == pytest.approx(0.5, rel=1e-5)
    assert paired_generalized_box_iou(a, a).item() == pytest.approx(1.0, rel=1e-5)
