"""Training a detector: the task that gives the loop its batches and losses, and finds the samples behind a NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from deixis.batch_records import Batch, Target
from deixis.data.detect.denoising import DenoisingQueries
from deixis.losses.boxes import boxes_per_process
from deixis.losses.detection import DetectionCriterion
from deixis.training.feed import Feed
from deixis.training.guard import bad_samples
from deixis.training.validation import Sums

Normalise = Callable[[UInt8[Tensor, "batch 3 h w"], Bool[Tensor, "batch h w"]], Float[Tensor, "batch 3 h w"]]
Denoise = Callable[[Sequence[Target]], DenoisingQueries | None]


class DetectorTask:
    """A detector's side of `training.run.Task`.

    Args:
        model: as returned by `Accelerator.prepare`.
        normalise: turns pixels into the model's input.
        evaluate, save_model: called by the loop under these names.
        denoise: makes the denoising queries of a batch; None trains without them.
    """

    shown: tuple[str, ...] = ("AP", "AP50")

    def __init__(
        self,
        model: nn.Module,
        normalise: Normalise,
        criterion: DetectionCriterion,
        *,
        feed: Feed[Batch],
        accelerator: Accelerator,
        evaluate: Callable[[], Mapping[str, Any]],
        save_model: Callable[[Path], None],
        denoise: Denoise | None = None,
    ) -> None:
        self.model = model
        self.normalise = normalise
        self.criterion = criterion
        self.feed = feed
        self.accelerator = accelerator
        self.evaluate = evaluate
        self.save_model = save_model
        self.denoise = denoise
        self.steps_per_epoch = feed.steps_per_epoch(accelerator.num_processes)
        self._outputs_checked = False  # whether the model returns an output for every loss

    def groups(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        """See `Feed.groups`."""
        return self.feed.groups(epoch, start, self.accelerator)

    def normaliser(self, group: Sequence[Batch]) -> Tensor:
        """Boxes in the whole step divided by the number of processes, at least 1."""
        # of all accumulated batches, so that their gradients add up to that of one large batch
        boxes = sum(len(target.class_ids) for batch in group for target in batch.targets)
        return boxes_per_process(boxes, self.accelerator.device)

    def losses(self, batch: Batch, normaliser: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total and every component; all NaN if an output is not finite."""
        total, losses = detection_losses(
            self.model, self.normalise, self.criterion, batch=batch, normaliser=normaliser, denoise=self.denoise
        )
        if not self._outputs_checked:  # once: it depends on the model alone
            warn_about_missing_outputs(self.criterion, losses)
            self._outputs_checked = True
        return total, losses

    def unsupervised_parts(self, group: Sequence[Batch]) -> Collection[str]:
        """None: images without an object train all parts too, with negatives."""
        del group
        return ()

    def non_finite_samples(self, group: Sequence[Batch], normaliser: Tensor) -> list[str]:
        """The samples that give a non-finite loss or gradient when they are alone in a batch."""
        model = self.accelerator.unwrap_model(self.model)

        def loss_alone(batch: Batch, index: int) -> Tensor:
            alone = one_sample(batch, index)
            return detection_losses(
                model, self.normalise, self.criterion, batch=alone, normaliser=normaliser, denoise=self.denoise
            )[0]

        return bad_samples(model, group, loss_alone)


def warn_about_missing_outputs(criterion: DetectionCriterion, losses: Mapping[str, Tensor]) -> None:
    """Warn if the model returns no auxiliary outputs: the losses of those layers would be missing silently."""
    missing = [name for name in criterion.weight_dict if name not in losses]
    if missing:
        warnings.warn(
            f"the model returns no output for {len(missing)} of {len(criterion.weight_dict) - 1} losses "
            f"({', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}): its aux_outputs or enc_outputs are "
            "missing, so those layers are not supervised",
            stacklevel=2,
        )


def detection_losses(
    model: nn.Module,
    normalise: Normalise,
    criterion: DetectionCriterion,
    *,
    batch: Batch,
    normaliser: Tensor,
    denoise: Denoise | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward and loss of one batch: the weighted total, and every component.

    Non-finite outputs cannot be matched, but every process must reach its backward pass with the same graph, or the
    others wait forever. So outputs are made finite for the criterion, and its total is multiplied by NaN.
    """
    pixel_values = normalise(batch.pixels_u8, batch.pixel_mask)
    denoising = denoise(batch.targets) if denoise else None
    # [B, Q, L] logits and [B, Q, 4] boxes (cxcywh_norm), of the last decoder layer and, nested, of the others
    outputs = model(pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask, denoising=denoising)
    finite = all_finite(outputs, batch)
    if not finite:
        outputs = made_finite(outputs)
    targets = batch.targets if finite else with_finite_boxes(batch).targets
    losses = criterion(outputs, targets, normaliser, denoising=denoising)
    total = criterion.total(losses)
    if not finite:
        # in the graph: the backward pass then gives NaN everywhere, and the loop skips the step in all processes
        total = total * torch.nan
        losses = {name: value.detach() * torch.nan for name, value in losses.items()}
    return total, losses


def loss_sums(model: nn.Module, normalise: Normalise, criterion: DetectionCriterion, *, batch: Batch) -> Sums:
    """Every component of a batch as its sum over the boxes, for `mean_losses`; without those of denoising queries."""
    _, losses = detection_losses(
        # Divided by 1, losses are sums.
        model,
        normalise,
        criterion,
        batch=batch,
        normaliser=torch.ones((), device=batch.pixels_u8.device),
    )
    boxes = sum(len(target.class_ids) for target in batch.targets)
    losses["class_error"] = losses["class_error"] * boxes  # a mean over the boxes already
    return {name: (float(value), boxes) for name, value in losses.items() if "_dn" not in name}


def all_finite(outputs: Mapping[str, Any], batch: Batch) -> bool:
    """Whether all boxes, predicted and true, and all logits of valid tokens are finite.

    One synchronisation; the matcher needs one a moment later anyway.
    """
    valid = outputs["text_token_mask"][:, None]  # [B, 1, L], for logits [B, Q, L]
    encoder = [outputs["enc_outputs"]] if "enc_outputs" in outputs else []
    finite = [target.boxes_cxcywh_norm.isfinite().all() for target in batch.targets]
    # Logits of padded tokens may be -inf by design: only valid ones have to be finite.
    for layer in (outputs, *outputs.get("aux_outputs", ()), *outputs.get("denoising_outputs", ()), *encoder):
        finite += [layer["pred_boxes"].isfinite().all(), (layer["pred_logits"].isfinite() | ~valid).all()]
    return bool(torch.stack(finite).all())


def made_finite(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same outputs, still in the graph, with 0 instead of NaN and inf."""

    def clean(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {**layer, **{k: layer[k].nan_to_num(0.0, 0.0, 0.0) for k in ("pred_logits", "pred_boxes")}}

    cleaned = clean(outputs)
    for name in ("aux_outputs", "denoising_outputs"):
        if name in outputs:
            cleaned[name] = [clean(layer) for layer in outputs[name]]
    if "enc_outputs" in outputs:
        cleaned["enc_outputs"] = clean(outputs["enc_outputs"])
    return cleaned


def with_finite_boxes(batch: Batch) -> Batch:
    """The batch with 0 instead of non-finite target boxes."""
    targets = tuple(replace(t, boxes_cxcywh_norm=t.boxes_cxcywh_norm.nan_to_num(0.0, 0.0, 0.0)) for t in batch.targets)
    return replace(batch, targets=targets)


def one_sample(batch: Batch, index: int) -> Batch:
    """One sample of a batch, with the batch's padding."""
    # slices keep the batch axis, and the padding stays: the sample is tried as it was seen
    at = slice(index, index + 1)
    return Batch(
        batch.pixels_u8[at], batch.pixel_mask[at], batch.input_ids[at], batch.attention_mask[at], batch.targets[at]
    )
