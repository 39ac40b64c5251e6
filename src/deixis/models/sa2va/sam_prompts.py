"""SAM 2 asked as it comes: by boxes and by points (arXiv 2408.00714), on features that are computed once an image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deixis.models.sa2va.pointing import dense_prompt
from deixis.models.sa2va.sam import Masks, SamLevels, decode, sharp_levels, without_memory
from deixis.models.sa2va.sam_protocol import Sam


def masks_of_boxes(
    sam: Sam, boxes_xyxy: Float[Tensor, "objects 4"], levels: SamLevels, image_of_object: Int[Tensor, " objects"]
) -> Masks:
    """Three masks for each box.

    Args:
        boxes_xyxy: in pixels of SAM 2's square.
        levels: of every image, once.
        image_of_object: the image each box is in.
    """
    # One prompt per object, [objects, 1, 4]; a box becomes its two corners and a `not_a_point`.
    sparse, _ = sam.prompt_encoder(None, None, boxes_xyxy[:, None], None)
    return _decoded(sam, sparse[:, 0], levels, image_of_object)  # [objects, 3, sam_channels]


def masks_of_points(
    sam: Sam, points_xy: Float[Tensor, "objects 2"], levels: SamLevels, image_of_object: Int[Tensor, " objects"]
) -> Masks:
    """Three masks for each point, which is inside of what is meant; otherwise as `masks_of_boxes`."""
    inside = torch.ones(len(points_xy), 1, dtype=torch.int32, device=points_xy.device)
    return masks_of_clicks(sam, points_xy[:, None], inside, levels, image_of_object=image_of_object)


def masks_of_clicks(
    sam: Sam,
    points_xy: Float[Tensor, "objects points 2"],
    inside: Int[Tensor, "objects points"],
    levels: SamLevels,
    *,
    image_of_object: Int[Tensor, " objects"],
    boxes_xyxy: Float[Tensor, "objects 4"] | None = None,
) -> Masks:
    """Three masks for each object from points on it and beside it, and from a box around it where one is given.

    Args:
        points_xy: in pixels of SAM 2's square.
        inside: 1 where a point is on the object, 0 where it is not.
        boxes_xyxy: in the same pixels.
    """
    # One prompt per object: [objects, 1, points, 2], [objects, 1, points], [objects, 1, 4]
    boxes = None if boxes_xyxy is None else boxes_xyxy[:, None]
    sparse, _ = sam.prompt_encoder(points_xy[:, None], inside[:, None], boxes, None)
    return _decoded(sam, sparse[:, 0], levels, image_of_object)


def _decoded(
    sam: Sam,
    sparse: Float[Tensor, "objects tokens sam_channels"],
    levels: SamLevels,
    image_of_object: Int[Tensor, " objects"],
) -> Masks:
    """The mask decoder on features without a memory."""
    fine, middle = (level[image_of_object] for level in sharp_levels(sam, levels))
    coarse = without_memory(sam, levels[2])[image_of_object]
    found = decode(sam, coarse, (fine, middle), sparse.to(coarse.dtype), dense_prompt(sam, None))
    return Masks(found.logits, found.ious, found.object_scores)
