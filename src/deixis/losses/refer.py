"""The segmenter's loss: which of an object's three masks is supervised, by which losses, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.errors import OptionError, TrainingError
from deixis.losses.boxes import boxes_per_process
from deixis.losses.masks import mask_ce, mask_iou, naive_dice, uncertain_points, values_at

Behaviour = Literal["deixis", "sa2va"]
IouLoss = Literal["l1", "mse"]
POINTS = 12_544  # 112², as in Mask2Former (arXiv 2112.01527) and Sa2VA

_MASK_OUTPUTS = {"pred_masks": 4, "pred_ious": 2, "object_scores": 1}


class Points(NamedTuple):
    """How points are drawn; see `uncertain_points`."""

    generator: torch.Generator | None
    seeds: Sequence[tuple[int, int]] | None


class ReferCriterion:
    """The losses of a segmenter's outputs, by name.

    SAM 2's decoder returns three masks per object, each with a predicted IoU. Behaviours:

    - `sa2va`, as released (arXiv 2501.04001): the mask with the highest predicted IoU gets `loss_mask` and
      `loss_dice`, whatever the target, also an empty one. Predicted IoU and object score get no loss.
    - `deixis`, as SAM 2 was trained (arXiv 2408.00714): the mask with the lowest loss is supervised; `loss_iou` pulls
      each predicted IoU towards the true IoU of its mask; `loss_object` is the cross-entropy of "the phrase means
      something here". An empty target says that it does not: such an object has no other loss.

    Where the outputs hold `point_logits`, `loss_point` is the cross-entropy between their softmax over the cells and
    the target's share in each cell, and with `deixis` all three masks are supervised: SAM 2 has three because a click
    is ambiguous. A phrase is not, and from random weights three masks learn to cover three things, whatever is asked.

    `iou`, for the log and with weight 0, belongs to what inference would show: the mask with the highest predicted
    IoU, and with `deixis` an empty mask where the object score is not positive. It is 1 where both are empty.

    Args:
        iou_loss: `loss_iou` is the absolute or the squared difference, the mean over the three masks.
        points: number of points per mask for the mask losses; None uses every pixel.
        oversample, importance: see `uncertain_points`.

    Raises:
        OptionError: a weight is negative, or the points cannot be drawn.
    """

    def __init__(
        self,
        behaviour: Behaviour = "deixis",
        weight_mask: float = 2.0,
        weight_dice: float = 0.5,
        *,
        weight_iou: float = 1.0,
        weight_object: float = 1.0,
        weight_language: float = 1.0,
        weight_point: float = 1.0,
        iou_loss: IouLoss = "l1",
        points: int | None = POINTS,
        oversample: float = 3.0,
        importance: float = 0.75,
    ) -> None:
        weights = {"loss_mask": weight_mask, "loss_dice": weight_dice}
        if behaviour == "deixis":
            weights |= {"loss_iou": weight_iou, "loss_object": weight_object}
        weights |= {"loss_language": weight_language, "loss_point": weight_point}
        if min(weights.values()) < 0:
            raise OptionError(f"loss weights must not be negative, got {weights}")
        if points is not None and (points < 1 or oversample < 1 or not 0 <= importance <= 1):
            raise OptionError(
                f"points must be 1 or more, oversample 1 or more and importance in [0, 1]; "
                f"got {points}, {oversample} and {importance}"
            )
        self.behaviour, self.iou_loss = behaviour, iou_loss
        self.points, self.oversample, self.importance = points, oversample, importance
        self.weight_dict = {**weights, "iou": 0.0}

    def __call__(
        self,
        outputs: Mapping[str, Tensor],
        masks: Bool[Tensor, "objects h w"],
        num_objects: float | Tensor | None = None,
        *,
        num_labels: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        seeds: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """Every component, unweighted, as float32 scalars; exact zeros, still in the graph, where there is no object.

        Args:
            outputs: `pred_masks [objects 3 h w]` logits, `pred_ious [objects 3]`, `object_scores [objects]` logits,
                `label_logits [labels vocab]` at the positions that have a label, `label_ids [labels]`; possibly
                `point_logits [objects cells cells]`.
            masks: the target of each object, all false where the phrase means nothing.
            num_objects: the divisor of the mask losses and `iou`, used unchanged; by default the objects of all
                processes divided by the number of processes, at least 1 (all processes must call). A caller that
                accumulates gradients over several batches passes the number for all of them.
            num_labels: the same for `loss_language`.
            generator: draws the points; None uses torch's global one.
            seeds: (objects, seed) of each sample, which draw its points instead of `generator`.

        Raises:
            TrainingError: outputs and masks do not belong together.
        """
        _check(outputs, masks)
        device = outputs["pred_masks"].device
        if num_objects is None:
            num_objects = boxes_per_process(len(masks), device)
        if num_labels is None:
            num_labels = boxes_per_process(len(outputs["label_ids"]), device)
        with torch.autocast(device.type, enabled=False):
            by_object = self._by_object(outputs, masks, Points(generator, seeds))
            losses = {name: value.sum() / num_objects for name, value in by_object.items()}
            losses["loss_language"] = language_ce(outputs["label_logits"].float(), outputs["label_ids"]) / num_labels
            if "point_logits" in outputs:
                losses["loss_point"] = pointing_ce(outputs["point_logits"].float(), masks).sum() / num_objects
        return {name: losses[name] for name in self.weight_dict if name in losses}

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum, which is what training minimises."""
        return torch.stack([self.weight_dict[name] * loss for name, loss in losses.items() if name != "iou"]).sum()

    def _by_object(
        self, outputs: Mapping[str, Tensor], masks: Bool[Tensor, "objects h w"], drawn: Points
    ) -> dict[str, Float[Tensor, " objects"]]:
        logits, ious = outputs["pred_masks"], outputs["pred_ious"].float()  # [objects, 3, h, w], [objects, 3]
        shown = ious.argmax(1)  # the mask that inference shows
        if self.behaviour == "sa2va":
            ce, dice = self._supervise(_pick(logits, shown).float(), masks, drawn)
            return {"loss_mask": ce, "loss_dice": dice, "iou": _ious(_pick(logits, shown)[:, None], masks)[:, 0]}
        scores = outputs["object_scores"].float()
        present = masks.flatten(1).any(1)  # [objects, h, w] -> [objects]
        true_ious = _ious(logits, masks)  # [objects, 3]
        every = "point_logits" in outputs
        chosen = logits.unbind(1) if every else (_pick(logits, self._best(logits, masks)),)
        ce, dice = self._supervise_all(chosen, masks, drawn)
        gap = ious - true_ious
        # [objects, 3]; the true IoU is a constant: thresholded masks have no gradient
        gap = gap.abs() if self.iou_loss == "l1" else gap.square()
        visible = torch.where(present, _pick(true_ious, shown), 0.0)
        return {
            "loss_mask": ce * present,
            "loss_dice": dice * present,
            "loss_iou": gap.mean(1) * present,
            "loss_object": F.binary_cross_entropy_with_logits(scores, present.float(), reduction="none"),
            # with a score of 0 or less inference shows an empty mask, which is right for an absent object
            "iou": torch.where(scores.detach() > 0, visible, (~present).float()),
        }

    def _supervise_all(
        self,
        chosen: Sequence[Float[Tensor, "objects h w"]],
        masks: Bool[Tensor, "objects h w"],
        drawn: Points,
    ) -> tuple[Float[Tensor, " objects"], Float[Tensor, " objects"]]:
        """The mean losses of some masks of each object."""
        losses = [self._supervise(logits.float(), masks, drawn) for logits in chosen]
        ce, dice = (torch.stack(of_masks).mean(0) for of_masks in zip(*losses, strict=True))  # [masks, objects]
        return ce, dice

    def _supervise(
        self, logits: Float[Tensor, "objects h w"], masks: Bool[Tensor, "objects h w"], drawn: Points
    ) -> tuple[Float[Tensor, " objects"], Float[Tensor, " objects"]]:
        """Cross-entropy and Dice of one mask per object, at points or at all pixels."""
        targets = masks.float()
        if self.points is None:
            flat, wanted = logits.flatten(1), targets.flatten(1)  # [objects, h, w] -> [objects, h * w]
        else:
            points = uncertain_points(
                logits, self.points, self.oversample, importance=self.importance, **drawn._asdict()
            )
            flat, wanted = values_at(logits, points), values_at(targets, points)  # [objects, points]
        return mask_ce(flat, wanted), naive_dice(flat, wanted)

    @torch.no_grad()
    def _best(
        self, logits: Float[Tensor, "objects 3 h w"], masks: Bool[Tensor, "objects h w"]
    ) -> Int[Tensor, " objects"]:
        """The mask with the lowest weighted loss over all its pixels; sampled points would differ between masks."""
        flat = logits.float().flatten(2)  # [objects, 3, h, w] -> [objects, 3, h * w]
        wanted = masks.float().flatten(1)[:, None].expand_as(flat)  # [objects, h * w] -> [objects, 3, h * w]
        weighted = self.weight_dict["loss_mask"] * mask_ce(flat, wanted)
        return (weighted + self.weight_dict["loss_dice"] * naive_dice(flat, wanted)).argmin(1)


def language_ce(logits: Float[Tensor, "labels vocab"], label_ids: Int[Tensor, " labels"]) -> Float[Tensor, ""]:
    """Cross-entropy summed over the labels; 0, still in the graph, where there is none."""
    return F.cross_entropy(logits, label_ids, reduction="sum")


def pointing_ce(
    logits: Float[Tensor, "objects cells cells"], masks: Bool[Tensor, "objects h w"]
) -> Float[Tensor, " objects"]:
    """Cross-entropy between a map's softmax and the mask's share in each cell; 0 where the mask is empty."""
    rows, columns = logits.shape[-2:]
    areas = F.adaptive_avg_pool2d(masks[:, None].float(), (rows, columns)).flatten(1)  # [objects, cells * cells]
    # an empty mask has shares of 0, and so a loss of 0
    shares = areas / areas.sum(1, keepdim=True).clamp(min=torch.finfo(areas.dtype).tiny)
    return -(shares * logits.flatten(1).log_softmax(1)).sum(1)


@torch.no_grad()
def _ious(logits: Tensor, masks: Bool[Tensor, "objects h w"]) -> Float[Tensor, "objects masks"]:
    """The IoU of each of an object's masks with its target."""
    predicted = (logits > 0).flatten(2)  # probability over 0.5; [objects, masks, h * w]
    return mask_iou(predicted, masks.flatten(1)[:, None].expand_as(predicted))


def _pick(values: Tensor, index: Int[Tensor, " objects"]) -> Tensor:
    """One entry per object: [objects, n, ...] -> [objects, ...]."""
    return values[torch.arange(len(index), device=index.device), index]


def _check(outputs: Mapping[str, Tensor], masks: Bool[Tensor, "objects h w"]) -> None:
    for name, dimensions in _MASK_OUTPUTS.items():
        if outputs[name].ndim != dimensions or len(outputs[name]) != len(masks):
            raise TrainingError(
                f"{name} has shape {tuple(outputs[name].shape)} for {len(masks)} target masks; "
                f"an object needs one [SEG] and one mask each"
            )
    if outputs["pred_masks"].shape[2:] != masks.shape[1:]:
        raise TrainingError(
            f"predicted masks are {tuple(outputs['pred_masks'].shape[2:])}, targets {tuple(masks.shape[1:])} "
            f"(height, width); make the targets on the grid of the losses"
        )
    if len(outputs["label_logits"]) != len(outputs["label_ids"]):
        raise TrainingError(f"{len(outputs['label_logits'])} rows of logits for {len(outputs['label_ids'])} labels")
