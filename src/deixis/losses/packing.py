"""Targets and outputs of a batch as stacked tensors, so that matching and losses take all images and layers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.batch_records import Target
from deixis.errors import TrainingError


@dataclass(frozen=True)
class PackedTargets:
    """The targets of a batch, padded to the largest number of objects, classes and tokens in any image.

    Attributes:
        boxes_cxcywh_norm: zeros where padded.
        class_ids: rows of `class_maps`; 0 where padded.
        class_maps: the weight of each token in each class, rows sum to 1; zeros where padded.
        class_mask: true on an image's own classes.
        counts: number of objects per image, on the host.
        sources: where each image was read, for messages.
        unjudged_tokens: true on the tokens of `Target.unjudged_class_ids`; None where no image has any.
    """

    boxes_cxcywh_norm: Float[Tensor, "batch objects 4"]
    class_ids: Int[Tensor, "batch objects"]
    class_maps: Float[Tensor, "batch classes tokens"]
    class_mask: Bool[Tensor, "batch classes"]
    counts: tuple[int, ...]
    sources: tuple[str, ...]
    unjudged_tokens: Bool[Tensor, "batch tokens"] | None = None

    @property
    def token_maps(self) -> Float[Tensor, "batch objects tokens"]:
        """The positive map of each object's class; for padding, that of class 0."""
        rows = self.class_ids[..., None].expand(-1, -1, self.class_maps.shape[-1])  # [B, objects] -> [B, objects, L]
        return self.class_maps.gather(1, rows)

    def class_agnostic(self) -> PackedTargets:
        """The same objects, all of one class with one token, "object"."""
        batch, one = len(self.class_ids), self.class_maps.new_ones
        unjudged = self.unjudged_tokens
        return replace(
            self,
            class_ids=torch.zeros_like(self.class_ids),
            class_maps=one(batch, 1, 1),
            class_mask=one(batch, 1, dtype=torch.bool),
            unjudged_tokens=None if unjudged is None else unjudged.any(1, keepdim=True),
        )


def pack_targets(targets: Sequence[Target], device: torch.device) -> PackedTargets:
    """Pad and join targets, in float32, and copy them to a device.

    Raises:
        TrainingError: there is no target, or an image has no class.
    """
    if not targets or any(not len(target.positive_map) for target in targets):
        raise TrainingError("the criterion needs at least one image, and a prompt of at least one class for each")
    objects = max(len(target.class_ids) for target in targets)
    classes = max(len(target.positive_map) for target in targets)
    tokens = max(target.positive_map.shape[1] for target in targets)
    # Filled where the targets are, usually on the host, then copied once per tensor.
    own_device = targets[0].positive_map.device
    # zero boxes where padded: their costs and losses are finite, and nothing is matched to them
    boxes = torch.zeros(len(targets), objects, 4, device=own_device)
    class_ids = torch.zeros(len(targets), objects, dtype=torch.long, device=own_device)
    class_maps = torch.zeros(len(targets), classes, tokens, device=own_device)
    class_mask = torch.zeros(len(targets), classes, dtype=torch.bool, device=own_device)
    for image, target in enumerate(targets):
        count = len(target.class_ids)
        boxes[image, :count] = target.boxes_cxcywh_norm
        class_ids[image, :count] = target.class_ids
        # [classes, L] of the image into the top left corner of [classes, L] of the batch
        class_maps[image, : len(target.positive_map), : target.positive_map.shape[1]] = target.positive_map
        class_mask[image, : len(target.positive_map)] = True
    return PackedTargets(
        boxes.to(device),
        class_ids.to(device),
        class_maps.to(device),
        class_mask.to(device),
        tuple(len(target.class_ids) for target in targets),
        tuple(target.source or f"image {target.image_id}" for target in targets),
        _unjudged_tokens(targets, tokens, device),
    )


def _unjudged_tokens(
    targets: Sequence[Target], tokens: int, device: torch.device
) -> Bool[Tensor, "batch tokens"] | None:
    if not any(target.unjudged_class_ids for target in targets):
        return None
    unjudged = torch.zeros(len(targets), tokens, dtype=torch.bool, device=device)
    for row, target in zip(unjudged, targets, strict=True):
        if target.unjudged_class_ids:
            owned = target.positive_map[list(target.unjudged_class_ids)].amax(0) > 0  # [classes, L] -> [L]
            row[: len(owned)] = owned
    return unjudged


def valid_tokens(outputs: Mapping[str, Any], targets: PackedTargets) -> Bool[Tensor, "batch tokens"]:
    """The text token mask, cut to the longest prompt in the batch.

    The width comes from the targets: reading it from the mask would be a synchronisation with the device.
    """
    mask, tokens = outputs["text_token_mask"], targets.class_maps.shape[-1]
    if len(mask) != len(targets.counts) or tokens > mask.shape[1]:
        raise TrainingError(
            f"outputs are for {len(mask)} images of at most {mask.shape[1]} tokens, "
            f"targets for {len(targets.counts)} images of {tokens} tokens"
        )
    # checked on the device: on a GPU the assertion does not wait, and fails at a later synchronisation
    torch._assert_async(~mask[:, tokens:].any(), "text_token_mask reaches beyond the targets' positive maps")
    valid: Tensor = mask[:, :tokens]
    return valid


def stacked_layers(
    layers: Mapping[str, Mapping[str, Tensor]], token_mask: Bool[Tensor, "batch tokens"]
) -> tuple[Float[Tensor, "layers batch queries tokens"], Float[Tensor, "layers batch queries 4"]]:
    """Logits (0 on padded tokens) and boxes of all layers, in float32.

    Padding is replaced before any arithmetic, so its gradient is exactly 0; -inf would make it NaN.
    """
    # layers of [B, Q, max_text_len] -> [layers, B, Q, L]
    logits = torch.stack([layer["pred_logits"][..., : token_mask.shape[1]] for layer in layers.values()]).float()
    # layers of [B, Q, 4] -> [layers, B, Q, 4]
    boxes = torch.stack([layer["pred_boxes"] for layer in layers.values()]).float()
    return torch.where(token_mask[:, None], logits, 0.0), boxes
