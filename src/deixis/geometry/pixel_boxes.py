"""Boxes between files and the model, of annotations and predictions: NumPy arrays in absolute pixels, no torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


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


def _scale(size_hw: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    height, width = size_hw
    return np.array([width, height, width, height], dtype)
