"""Boxes between files and the model, of annotations and predictions: NumPy arrays in absolute pixels, no torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def clip_boxes(boxes_xyxy_px: Float[np.ndarray, "n 4"], size_hw: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
    """Boxes clipped to an image of (height, width) pixels; a box entirely outside loses its area.

    >>> clip_boxes(np.array([[-5.0, 10.0, 30.0, 90.0]]), (40, 20)).tolist()
    [[0.0, 10.0, 20.0, 40.0]]
    """
    height, width = size_hw
    clipped: np.ndarray = np.clip(boxes_xyxy_px, 0, np.array([width, height, width, height], boxes_xyxy_px.dtype))
    return clipped


def normalise_boxes(boxes_xyxy_px: Float[np.ndarray, "n 4"], size_hw: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
    """xyxy_px to cxcywh_norm: centre and size, divided by the size of the unpadded image.

    >>> normalise_boxes(np.array([[10.0, 20.0, 20.0, 60.0]]), (80, 40)).tolist()
    [[0.375, 0.5, 0.25, 0.5]]
    """
    left_top, right_bottom = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]  # [n, 2] each
    boxes_cxcywh_px = np.concatenate([(left_top + right_bottom) / 2, right_bottom - left_top], axis=1)
    boxes_cxcywh_norm: np.ndarray = boxes_cxcywh_px / _scale(size_hw, boxes_xyxy_px.dtype)
    return boxes_cxcywh_norm


def denormalise_boxes(
    boxes_cxcywh_norm: Float[np.ndarray, "n 4"], size_hw: tuple[int, int]
) -> Float[np.ndarray, "n 4"]:
    """cxcywh_norm to xyxy_px for an image of the given (height, width): the inverse of `normalise_boxes`.

    >>> denormalise_boxes(np.array([[0.375, 0.5, 0.25, 0.5]]), (80, 40)).tolist()
    [[10.0, 20.0, 20.0, 60.0]]
    """
    boxes_cxcywh_px = boxes_cxcywh_norm * _scale(size_hw, boxes_cxcywh_norm.dtype)
    centre, half = boxes_cxcywh_px[:, :2], boxes_cxcywh_px[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def overlaps(
    box_xyxy_px: Float[np.ndarray, "*one 4"], boxes_xyxy_px: Float[np.ndarray, "n 4"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """IoU and IoS (intersection over the smaller area) of one box with others, or of pairs; 0 where there is no area.

    >>> iou, ios = overlaps(np.array([0.0, 0, 4, 4]), np.array([[0.0, 0, 2, 4]]))
    >>> iou.tolist(), ios.tolist()
    ([0.5], [1.0])
    """
    # [n, 2]: width and height of what is shared
    ends = np.minimum(box_xyxy_px[..., 2:], boxes_xyxy_px[:, 2:])
    shared = np.clip(ends - np.maximum(box_xyxy_px[..., :2], boxes_xyxy_px[:, :2]), 0, None).prod(1)
    area = np.clip(box_xyxy_px[..., 2:] - box_xyxy_px[..., :2], 0, None).prod(-1)  # [] for one box, [n] for pairs
    areas = np.clip(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], 0, None).prod(1)
    union, smaller = area + areas - shared, np.minimum(area, areas)
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou, np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)


def nms(
    boxes_xyxy_px: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    iou: float,
    *,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, " m"]:
    """Non-maximum suppression: positions of the boxes that overlap no better one of their group by `iou` or more.

    In the order given. Of equal scores the first is the better one.

    >>> nms(np.array([[0.0, 0, 9, 9], [0, 0, 9, 8], [50, 0, 60, 9]]), np.array([0.5, 0.9, 0.1]), 0.5).tolist()
    [1, 2]
    """
    waiting = np.argsort(-scores, kind="stable")  # indices, best first
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        covered = overlaps(boxes_xyxy_px[best], boxes_xyxy_px[waiting])[0] >= iou
        if groups is not None:
            covered &= groups[waiting] == groups[best]
        waiting = waiting[~covered]
    return np.sort(np.array(kept, np.int64))


def _scale(size_hw: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    height, width = size_hw
    return np.array([width, height, width, height], dtype)
