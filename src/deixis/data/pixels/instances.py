"""What resizing, flipping and cropping do to boxes, areas and masks; pixels are `transforms`'s business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask as coco_mask

from deixis.geometry.rle import bitmap_rle
from deixis.records import Instances, Rle

_Bitmap = UInt8[np.ndarray, "h w"]
_Changed = UInt8[np.ndarray, "new_h new_w"]
Kept = Bool[np.ndarray, " n"]

MIN_VISIBLE_SHARE = 0.25
"""Of an object, for a crop to keep it. Random crops have a quarter of the image or more, so that what fills the image
is always kept; and of less than a quarter few things can be recognised."""


def scale_instances(instances: Instances, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Instances:
    """Instances of an image resized from one whole-pixel size to another, each axis by its own ratio."""
    if from_hw == to_hw:
        return instances
    ratio_y, ratio_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]

    def resized(bitmap: _Bitmap) -> _Changed:
        # nearest, so that masks stay 0 or 1
        return np.asarray(cv2.resize(bitmap, (to_hw[1], to_hw[0]), interpolation=cv2.INTER_NEAREST), np.uint8)

    return replace(
        instances,
        boxes_xyxy_px=instances.boxes_xyxy_px * np.array([ratio_x, ratio_y, ratio_x, ratio_y]),
        areas_px=instances.areas_px * (ratio_x * ratio_y),
        masks_rle=_map_masks(instances, resized),
    )


def flip_instances(instances: Instances, width_px: int) -> Instances:
    """Instances of an image mirrored left to right."""
    x1, y1, x2, y2 = instances.boxes_xyxy_px.T
    boxes = np.stack([width_px - x2, y1, width_px - x1, y2], axis=1)  # the right side becomes the left one
    return replace(instances, boxes_xyxy_px=boxes, masks_rle=_map_masks(instances, lambda bitmap: bitmap[:, ::-1]))


def crop_instances(
    instances: Instances, window_xyxy_px: tuple[int, int, int, int], min_visible: float = MIN_VISIBLE_SHARE
) -> Instances:
    """Instances that remain in a window (`kept_by_crop`), clipped to it, in the window's frame.

    Areas become the mask's, where there is one, and otherwise shrink with the box.
    """
    left, top, right, bottom = window_xyxy_px
    instances = instances.select(kept_by_crop(instances, window_xyxy_px, min_visible))
    boxes = instances.boxes_xyxy_px
    low, high = np.array([left, top, left, top]), np.array([right, bottom, right, bottom])
    clipped = np.clip(boxes, low, high)
    # [n]: share of each box that is left
    remaining = _sides(clipped).prod(1) / np.maximum(_sides(boxes).prod(1), 1e-12)
    masks = _map_masks(instances, lambda bitmap: bitmap[top:bottom, left:right])
    areas = instances.areas_px * remaining
    if masks:
        areas = np.asarray(coco_mask.area(list(masks)), np.float64)  # pixels that the crop left
    return replace(instances, boxes_xyxy_px=clipped - low, areas_px=areas, masks_rle=masks)  # in the window's frame


def kept_by_crop(
    instances: Instances, window_xyxy_px: tuple[int, int, int, int], min_visible: float = MIN_VISIBLE_SHARE
) -> Kept:
    """Which instances a crop keeps: those with a share of them inside, and crowds that reach in at all."""
    enough: np.ndarray = visible_shares(instances, window_xyxy_px) >= min_visible
    return np.where(instances.is_crowd, _reach_in(instances, window_xyxy_px), enough)


def classes_cut_away(
    instances: Instances, window_xyxy_px: tuple[int, int, int, int], min_visible: float = MIN_VISIBLE_SHARE
) -> frozenset[int]:
    """Classes of which the window still shows something of an object that it does not keep.

    The crop neither has such an object nor shows that there is none: nobody can judge what is found there.
    """
    cut = (visible_shares(instances, window_xyxy_px) > 0) & ~kept_by_crop(instances, window_xyxy_px, min_visible)
    return frozenset(instances.class_ids[cut].tolist())


def visible_shares(instances: Instances, window_xyxy_px: tuple[int, int, int, int]) -> Float[np.ndarray, " n"]:
    """How much of each instance lies in the window, 0 to 1: of its mask, and of its box where there is none.

    A box without an area is inside with its centre or not at all.
    """
    left, top, right, bottom = window_xyxy_px
    boxes = instances.boxes_xyxy_px
    # [n] each: areas of the boxes, and of what the window has of them
    whole = _sides(boxes).prod(1)
    inside = _sides(np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))).prod(1)
    centred = _centred_in(boxes, window_xyxy_px)
    shares: np.ndarray = np.where(whole > 0, inside / np.maximum(whole, 1e-12), centred)
    reach_in = _reach_in(instances, window_xyxy_px)
    for index, rle in enumerate(instances.masks_rle or ()):
        if reach_in[index] and shares[index] < 1 and (area := int(coco_mask.area(rle))):
            # its box reaches over the border: counted, pixel by pixel
            shares[index] = int(coco_mask.decode(rle)[top:bottom, left:right].sum()) / area
    return np.where(reach_in, shares, 0.0)


def _reach_in(instances: Instances, window_xyxy_px: tuple[int, int, int, int]) -> Kept:
    left, top, right, bottom = window_xyxy_px
    boxes = instances.boxes_xyxy_px
    overlap = ((boxes[:, :2] < (right, bottom)) & (boxes[:, 2:] > (left, top))).all(1)
    return np.asarray(overlap | _centred_in(boxes, window_xyxy_px))  # a box without an area overlaps no border


def _centred_in(boxes_xyxy_px: np.ndarray, window_xyxy_px: tuple[int, int, int, int]) -> Kept:
    """Whether a box's centre is in the window, whose right and lower border belong to the next one."""
    left, top, right, bottom = window_xyxy_px
    centres = (boxes_xyxy_px[:, :2] + boxes_xyxy_px[:, 2:]) / 2
    return np.asarray(((centres >= (left, top)) & (centres < (right, bottom))).all(1))


def _sides(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    sides: np.ndarray = boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]  # [n, 2]: width and height
    return sides


def _map_masks(instances: Instances, change: Callable[[_Bitmap], _Changed]) -> tuple[Rle, ...] | None:
    if instances.masks_rle is None:
        return None
    # one bitmap in memory at a time
    bitmaps = (change(coco_mask.decode(rle)) for rle in instances.masks_rle)
    return tuple(bitmap_rle(bitmap) for bitmap in bitmaps)
