"""The detector's loss: selects, weights and names what the pure functions in this folder compute.

Every decoder layer and the encoder's proposals get the same losses (Deformable DETR, arXiv 2010.04159; DINO,
arXiv 2203.03605), computed for all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deixis.batch_records import Target
from deixis.data.detect.denoising import DenoisingQueries
from deixis.errors import OptionError, TrainingError
from deixis.losses.boxes import boxes_per_process, giou_loss, l1_loss
from deixis.losses.focal import focal_loss_sums
from deixis.losses.matched import class_error, denoising_losses, positive_tokens, without_unjudged
from deixis.losses.matcher import ClassCost, HungarianMatcher
from deixis.losses.packing import PackedTargets, pack_targets, stacked_layers, valid_tokens

EncoderLoss = Literal["token", "objectness"]


@dataclass(frozen=True)
class Preset:
    """The matching costs and loss weights that a family of checkpoints was trained with."""

    cost_class: float
    cost_l1: float
    cost_giou: float
    weight_class: float
    weight_l1: float
    weight_giou: float
    class_cost: ClassCost
    alpha: float = 0.25
    gamma: float = 2.0


PRESETS = {
    "grounding_dino": Preset(1.0, 5.0, 2.0, 2.0, 5.0, 2.0, "class_tokens"),
    "mm_grounding_dino": Preset(2.0, 5.0, 2.0, 1.0, 5.0, 2.0, "all_tokens"),
}


def build_criterion(
    preset: Preset | str = "grounding_dino",
    encoder_loss: EncoderLoss = "token",
    decoder_layers: int = 6,
    *,
    denoising: bool = False,
) -> DetectionCriterion:
    """The criterion for a preset's name, or for your own `Preset`.

    Args:
        encoder_loss: "token" compares the encoder's proposals with the tokens of their classes, as the decoder's
            queries; "objectness" only asks whether a proposal is an object.
        decoder_layers: how many decoder layers the outputs have.
        denoising: whether the outputs may hold denoising queries.

    Raises:
        OptionError: there is no preset of that name.

    >>> criterion = build_criterion("grounding_dino", decoder_layers=2)
    >>> sorted(name for name, weight in criterion.weight_dict.items() if weight == 5.0)
    ['loss_bbox', 'loss_bbox_0', 'loss_bbox_enc']
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise OptionError(f"loss preset {preset!r} is not known; choose one of {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    matcher = HungarianMatcher(
        preset.cost_class,
        preset.cost_l1,
        preset.cost_giou,
        alpha=preset.alpha,
        gamma=preset.gamma,
        class_cost=preset.class_cost,
    )
    return DetectionCriterion(
        matcher,
        preset.weight_class,
        preset.weight_l1,
        weight_giou=preset.weight_giou,
        alpha=preset.alpha,
        gamma=preset.gamma,
        encoder_loss=encoder_loss,
        decoder_layers=decoder_layers,
        denoising=denoising,
    )


class DetectionCriterion:
    """The losses of a detector's outputs, by name.

    `loss_ce`, `loss_bbox` and `loss_giou` belong to the last decoder layer; the suffixes `_0`, `_1`, ... mark the
    layers before it and `_enc` the encoder's proposals: 21 losses for six layers. With `denoising` come those of the
    denoising queries, `loss_ce_dn`, `loss_ce_dn_0`, ..., with the same weights; they are 0 for a batch without such
    queries. `class_error` is a percentage for the log, with weight 0.

    Raises:
        OptionError: a weight is negative.

    Example, with logits sure of token 1 for the only query:

        >>> target = Target(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([0]), torch.tensor([[0.0, 1.0]]),
        ...                 (80, 80), (80, 80), image_id=7)
        >>> outputs = {"pred_logits": torch.tensor([[[-9.0, 9.0]]]), "pred_boxes": target.boxes_cxcywh_norm[None],
        ...            "text_token_mask": torch.ones(1, 2, dtype=torch.bool)}
        >>> criterion = build_criterion(decoder_layers=1)
        >>> losses = criterion(outputs, [target])
        >>> {name: round(loss.item(), 4) for name, loss in losses.items()}
        {'loss_ce': 0.0, 'loss_bbox': 0.0, 'loss_giou': 0.0, 'class_error': 0.0}
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weight_class: float = 2.0,
        weight_l1: float = 5.0,
        *,
        weight_giou: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        encoder_loss: EncoderLoss = "token",
        decoder_layers: int = 6,
        denoising: bool = False,
    ) -> None:
        if min(weight_class, weight_l1, weight_giou) < 0:
            raise OptionError(f"loss weights must not be negative, got {weight_class}, {weight_l1}, {weight_giou}")
        self.matcher, self.alpha, self.gamma, self.encoder_loss = matcher, alpha, gamma, encoder_loss
        weights = {"loss_ce": weight_class, "loss_bbox": weight_l1, "loss_giou": weight_giou}
        # DETR's names: the last layer has no suffix
        layers = ["", *(f"_{layer}" for layer in range(decoder_layers - 1))]
        self.denoising_suffixes = [f"_dn{layer}" for layer in layers] if denoising else []
        suffixes = [*layers, "_enc", *self.denoising_suffixes]
        self.weight_dict = {name + suffix: weight for suffix in suffixes for name, weight in weights.items()}
        self.weight_dict["class_error"] = 0.0

    def __call__(
        self,
        outputs: Mapping[str, Any],
        targets: Sequence[Target],
        num_boxes: float | Tensor | None = None,
        *,
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Tensor]:
        """Every component, unweighted, as float32 scalars.

        Args:
            outputs: `pred_logits [B, Q, L]` (any value on padded tokens, also -inf), `pred_boxes [B, Q, 4]` in
                cxcywh_norm, `text_token_mask [B, L]`, and optionally `aux_outputs` (one per decoder layer except the
                last) and `enc_outputs`.
            targets: one per image. Their positive maps are as wide as the batch's `input_ids`, at most L.
            num_boxes: the divisor, used unchanged; by default `boxes_per_process` of this call. A caller that
                accumulates gradients over several batches passes that of all their boxes together.
            denoising: the queries that gave `denoising_outputs`. Their losses are also divided by the number of groups.

        Raises:
            TrainingError: targets and outputs do not belong together.
            NonFiniteCostError: a matching cost is NaN or inf; it names the layer and the image.
        """
        device = outputs["pred_logits"].device
        normaliser = (
            boxes_per_process(sum(len(t.class_ids) for t in targets), device) if num_boxes is None else num_boxes
        )
        with torch.autocast(device.type, enabled=False):  # costs and losses need float32, see `LOG_EPSILON`
            return self._losses(outputs, targets, normaliser, denoising=denoising)

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum, which is what training minimises."""
        weighted = [self.weight_dict[name] * loss for name, loss in losses.items() if name != "class_error"]
        return torch.stack(weighted).sum()

    def _losses(
        self,
        outputs: Mapping[str, Any],
        targets: Sequence[Target],
        num_boxes: float | Tensor,
        *,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        packed = pack_targets(targets, outputs["pred_logits"].device)
        token_mask = valid_tokens(outputs, packed)
        layers: dict[str, Mapping[str, Tensor]]
        layers = {"": outputs, **{f"_{index}": aux for index, aux in enumerate(outputs.get("aux_outputs", ()))}}
        if unknown := [suffix for suffix in layers if "loss_ce" + suffix not in self.weight_dict]:
            raise TrainingError(
                f"outputs have {len(layers)} decoder layers, the criterion was built for {len(layers) - len(unknown)}"
            )
        encoder = {"_enc": outputs["enc_outputs"]} if outputs.get("enc_outputs") else {}
        if self.encoder_loss == "token":
            layers |= encoder
            encoder = {}
        logits, boxes = stacked_layers(layers, token_mask)  # [layers, B, Q, L] and [layers, B, Q, 4]
        losses, queries = self._supervise(
            logits, boxes, token_mask, targets=packed, suffixes=list(layers), num_boxes=num_boxes
        )
        if encoder:
            logits, boxes = stacked_layers(encoder, token_mask)
            # [1, B, Q, L] -> [1, B, Q, 1]: the best token stands for "an object"
            logits = logits.masked_fill(~token_mask[:, None], -torch.inf).amax(-1, keepdim=True)
            one_token = token_mask.new_ones(len(token_mask), 1)
            losses |= self._supervise(
                logits, boxes, one_token, targets=packed.class_agnostic(), suffixes=list(encoder), num_boxes=num_boxes
            )[0]
        if self.denoising_suffixes:
            losses |= self._denoise(
                outputs.get("denoising_outputs", ()), token_mask, packed, num_boxes=num_boxes, denoising=denoising
            )
        last_logits = stacked_layers({"": outputs}, token_mask)[0][0]
        losses["class_error"] = class_error(last_logits, queries[0], packed)
        return losses

    def _denoise(
        self,
        layers: Sequence[Mapping[str, Tensor]],
        token_mask: Bool[Tensor, "batch tokens"],
        targets: PackedTargets,
        *,
        num_boxes: float | Tensor,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """The losses of denoising queries by name; the same names in every batch, because processes average by name."""
        names = ("loss_ce", "loss_bbox", "loss_giou")
        if denoising is None:
            zero = targets.boxes_cxcywh_norm.new_zeros(())
            return {name + suffix: zero for name in names for suffix in self.denoising_suffixes}
        # `layers` starts with the first decoder layer; the last one has the suffix without a number, which comes first
        by_suffix = dict(zip([*self.denoising_suffixes[1:], self.denoising_suffixes[0]], layers, strict=True))
        logits, boxes = stacked_layers(by_suffix, token_mask)
        found = denoising_losses(
            logits,
            boxes,
            token_mask,
            queries=denoising,
            targets=targets,
            num_boxes=num_boxes,
            alpha=self.alpha,
            gamma=self.gamma,
        )
        return {
            name + suffix: value
            for name in names
            for suffix, value in zip(by_suffix, found[name].unbind(), strict=True)
        }

    def _supervise(
        self,
        logits: Float[Tensor, "layers batch queries tokens"],
        boxes_cxcywh_norm: Float[Tensor, "layers batch queries 4"],
        token_mask: Bool[Tensor, "batch tokens"],
        *,
        targets: PackedTargets,
        suffixes: Sequence[str],
        num_boxes: float | Tensor,
    ) -> tuple[dict[str, Tensor], Int[Tensor, "layers batch objects"]]:
        """Match and compare all layers at once.

        Returns:
            The losses by name, and each object's query (-1 where it has none).
        """
        names = [_layer_name(suffix, suffixes) for suffix in suffixes]
        queries = self.matcher(logits.detach(), boxes_cxcywh_norm.detach(), token_mask, targets, layer_names=names)
        positive = positive_tokens(queries, targets.token_maps, logits.shape[2])
        if targets.unjudged_tokens is not None:  # federated data only
            logits = without_unjudged(logits, positive, targets.unjudged_tokens)
        sums = {"loss_ce": focal_loss_sums(logits, positive, token_mask, alpha=self.alpha, gamma=self.gamma)}
        # [layers, B, Q, 4] -> [layers, B, objects, 4]; unmatched objects take query 0 and are masked below
        predicted = boxes_cxcywh_norm.gather(2, queries.clamp(min=0)[..., None].expand(-1, -1, -1, 4))
        wanted = targets.boxes_cxcywh_norm.expand_as(predicted)  # [B, objects, 4] -> [layers, B, objects, 4]
        for name, loss in (("loss_bbox", l1_loss), ("loss_giou", giou_loss)):
            sums[name] = torch.where(queries >= 0, loss(predicted, wanted), 0.0).sum((1, 2))  # -> [layers]
        return {
            name + suffix: value
            for name, by_layer in sums.items()
            for suffix, value in zip(suffixes, (by_layer / num_boxes).unbind(), strict=True)
        }, queries


def _layer_name(suffix: str, suffixes: Sequence[str]) -> str:
    """A layer's name for messages."""
    if suffix == "_enc":
        return "encoder"
    last = sum(other != "_enc" for other in suffixes) - 1
    return f"decoder layer {suffix[1:] or last}"
