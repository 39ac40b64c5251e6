"""Contrastive denoising queries: noised copies of an image's own objects, which the decoder learns to put right.

DN-DETR (arXiv 2203.01305) adds noised boxes and labels to the decoder's queries while it trains; no matching is needed
for them, since each knows its object. DINO (arXiv 2203.03605, section 3.3) adds as many decoys, noised further, which
have to be rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from deixis.batch_records import Target
from deixis.errors import OptionError
from deixis.geometry.boxes import cxcywh_to_xyxy


@dataclass(frozen=True)
class DenoisingQueries:
    """Groups of noised objects, each group a positive copy and then a decoy of every object of the image.

    Attributes:
        boxes_cxcywh_norm: where the queries start.
        label_maps: tokens of the class that each query is given, right or swapped; rows sum to 1, zeros where padded.
        objects: the object of its image that each query was made from; 0 where padded.
        positive: true on copies to be put right; false on decoys and padding.
        real: false on padding, of images with fewer objects than the batch's fullest.
        groups: number of groups, one after another, all of the same length.
    """

    boxes_cxcywh_norm: Float[Tensor, "batch queries 4"]
    label_maps: Float[Tensor, "batch queries tokens"]
    objects: Int[Tensor, "batch queries"]
    positive: Bool[Tensor, "batch queries"]
    real: Bool[Tensor, "batch queries"]
    groups: int


def make_denoising_queries(
    targets: Sequence[Target], count: int, label_noise: float = 0.25, box_noise: float = 1.0
) -> DenoisingQueries | None:
    """Noised copies of a batch's objects, drawn from each image's own seed; None where there is no object.

    A copy's corners move by up to half of its own width and height times `box_noise`, a decoy's by half to the whole.
    A class is known by the tokens that name it, never by its place in the prompt, which changes from one image to the
    next; so it needs no table of classes, and a phrase of a sentence is a class like any other.

    Args:
        targets: one per image, on one device.
        count: copies per image, and as many decoys; as many whole groups as fit into it, at least one.
        label_noise: share of the queries that are given another class of their prompt.
        box_noise: see above.

    Raises:
        OptionError: a count below 1, or noise outside its range.
    """
    if count < 1 or not 0 <= label_noise <= 1 or not 0 <= box_noise <= 1:
        raise OptionError(
            f"denoising needs a query or more and noise from 0 to 1, got {count}, {label_noise} and {box_noise}"
        )
    most = max(len(target.class_ids) for target in targets)
    if most == 0:
        return None
    # by the batch's fullest image, so that all images have the same number of queries
    groups = max(count // most, 1)
    noised = [_noised(target, most, groups, label_noise, box_noise) for target in targets]
    # [batch, queries, 4], [batch, queries, tokens], [batch, queries]; queries = groups * 2 * most
    boxes, label_maps, real = (torch.stack(parts) for parts in zip(*noised, strict=True))
    # Inside a group the first `most` queries are copies, the next `most` decoys.
    decoy = (torch.arange(real.shape[1], device=real.device) // most % 2).bool()
    return DenoisingQueries(
        boxes_cxcywh_norm=boxes,
        label_maps=label_maps,
        objects=torch.arange(most, device=real.device).repeat(2 * groups).expand_as(real) * real,
        positive=real & ~decoy,
        real=real,
        groups=groups,
    )


def _noised(
    target: Target, most: int, groups: int, label_noise: float, box_noise: float
) -> tuple[Float[Tensor, "queries 4"], Float[Tensor, "queries tokens"], Bool[Tensor, " queries"]]:
    """(boxes, label maps, real) of one image's queries: groups of `most` copies and `most` decoys, zeros where padded.

    What is drawn is a function of the image's own seed and objects, whatever else is in the batch.
    """
    device, objects = target.boxes_cxcywh_norm.device, len(target.class_ids)
    # on the image's own device: moving drawn numbers there would wait for it
    generator = None if target.seed is None else torch.Generator(device).manual_seed(target.seed)
    copies = 2 * groups  # of each object: a copy and a decoy per group
    # [copies * objects]: 0 for a copy, 1 for a decoy
    decoy = torch.arange(copies, device=device).repeat_interleave(objects) % 2
    boxes = _moved(target.boxes_cxcywh_norm.repeat(copies, 1), decoy, box_noise, generator)  # [copies * objects, 4]
    labels = _swapped(target.class_ids.repeat(copies), len(target.positive_map), label_noise, generator)
    # [copies * objects, 4], [copies * objects, tokens], [copies * objects]
    rows = (boxes, target.positive_map[labels], torch.ones(copies * objects, dtype=torch.bool, device=device))
    # Padded per copy, not at the end: queries of one kind are in the same places in all images of the batch.
    boxes, maps, real = (_padded(row.reshape(copies, objects, *row.shape[1:]), most).flatten(0, 1) for row in rows)
    return boxes, maps, real


def _padded(rows: Shaped[Tensor, "groups objects *shape"], count: int) -> Shaped[Tensor, "groups count *shape"]:
    """The rows of each group, and zeros up to `count` of them."""
    return torch.cat((rows, rows.new_zeros(len(rows), count - rows.shape[1], *rows.shape[2:])), dim=1)


def _swapped(
    class_ids: Int[Tensor, " queries"], classes: int, share: float, generator: torch.Generator | None
) -> Int[Tensor, " queries"]:
    """Some of the classes replaced by others of the same prompt, all of them equally likely; a lone class stays."""
    if classes < 2:
        return class_ids
    shape, device = class_ids.shape, class_ids.device
    # Adding 1 to classes - 1 never gives the class itself.
    others = (class_ids + torch.randint(1, classes, shape, generator=generator, device=device)) % classes
    return torch.where(torch.rand(shape, generator=generator, device=device) < share, others, class_ids)


def _moved(
    boxes_cxcywh_norm: Float[Tensor, "queries 4"],
    decoy: Int[Tensor, " queries"],
    box_noise: float,
    generator: torch.Generator | None,
) -> Float[Tensor, "queries 4"]:
    """Boxes with every corner moved, inside the image; sides that would turn inside out become zero."""
    half = boxes_cxcywh_norm[..., 2:].repeat(1, 2) / 2  # [queries, 4]: half of (width, height, width, height)
    shares, signs = (torch.rand(half.shape, generator=generator, device=half.device) for _ in range(2))
    sign = torch.where(signs < 0.5, -1.0, 1.0)
    # DINO, section 3.3: shares in [0, 1) for copies and in [1, 2) for decoys, of half the box's side.
    corners = (cxcywh_to_xyxy(boxes_cxcywh_norm) + box_noise * sign * (shares + decoy[:, None]) * half).clamp(0, 1)
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) / 2, (high - low).clamp(min=0)), dim=-1)
