"""Training a segmenter: the task that gives the loop its batches and losses, and finds the samples behind a NaN."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deixis.batch_records import ReferBatch, Regions
from deixis.errors import TrainingError
from deixis.losses.refer import ReferCriterion
from deixis.training.feed import Feed
from deixis.training.guard import bad_samples
from deixis.training.sharding import is_sharded
from deixis.training.tasks.frozen_features import FrozenFeatures
from deixis.training.validation import Sums

MASK_PARTS = ("text_hidden_fcs", "sam_encoder", "mask_decoder", "sam_rest", "memory")
SIGHT_PARTS = ("vision", "projector")

Normalise = Callable[[UInt8[Tensor, "n 3 h w"]], Float[Tensor, "n 3 h w"]]


class SegmenterTask:
    """A segmenter's side of `training.run.Task`.

    Args:
        model: as returned by `Accelerator.prepare`.
        normalise_tiles, normalise_sam: turn pixels into the inputs of the vision-language model and of SAM 2.
        language: the language model's trainable parameters (such as its adapters), which `require_mask_gradient`
            checks in the first step.
        evaluate, save_model: called by the loop under these names.
        features: the cached features of frozen encoders; without it they encode every batch.
    """

    shown: tuple[str, ...] = ("gIoU", "cIoU")

    def __init__(
        self,
        model: nn.Module,
        normalise_tiles: Normalise,
        normalise_sam: Normalise,
        *,
        criterion: ReferCriterion,
        feed: Feed[ReferBatch],
        accelerator: Accelerator,
        language: Sequence[nn.Parameter],
        evaluate: Callable[[], Mapping[str, Any]],
        save_model: Callable[[Path], None],
        features: FrozenFeatures | None = None,
    ) -> None:
        self.model = model
        self.normalise_tiles = normalise_tiles
        self.normalise_sam = normalise_sam
        self.criterion = criterion
        self.feed = feed
        self.accelerator = accelerator
        self.unwatched = list(language)
        self.evaluate = evaluate
        self.save_model = save_model
        self.features = features
        self.steps_per_epoch = feed.steps_per_epoch(accelerator.num_processes)

    def groups(self, epoch: int, start: int) -> Iterator[list[ReferBatch]]:
        """See `Feed.groups`."""
        return self.feed.groups(epoch, start, self.accelerator)

    def normaliser(self, group: Sequence[ReferBatch]) -> Tensor:
        """(masks, labelled tokens) in the whole step, each divided by the number of processes and at least 1."""
        masks = sum(len(target.texts) for batch in group for target in batch.targets)
        # Counted and added on the device: reading the number of labels here would be a synchronisation.
        # From the second token on: a label is predicted from the token before it, and the first has none.
        labels = torch.stack([(batch.labels[:, 1:] >= 0).sum() for batch in group]).sum()
        # [2]: masks and labels of this process, then of all
        counts = torch.stack([torch.full_like(labels, masks), labels]).float()
        summed: Tensor = self.accelerator.reduce(counts, "sum")
        share: Tensor = summed / self.accelerator.num_processes
        return share.clamp(min=1)

    def losses(self, batch: ReferBatch, normaliser: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total and every component."""
        # with the criterion's own weights; the log has the unweighted components
        total, losses = self._losses(self.model, batch, normaliser)
        # Absent objects have no mask loss, so this checks the first batch with a mask that is not empty.
        if self.unwatched and any(bool(target.masks.any()) for target in batch.targets):
            require_mask_gradient(self.criterion, losses, self.unwatched)
            self.unwatched = []
        return total, {name: value.detach() for name, value in losses.items()}

    def unsupervised_parts(self, group: Sequence[ReferBatch]) -> Collection[str]:
        """The parts that make masks, if no target mask has a pixel: only absent objects, regions to describe, or chat.
        The parts that see, if there is no image."""
        shown = any(bool(target.masks.any()) for batch in group for target in batch.targets)
        seen = any(len(batch.tiles_u8) for batch in group)
        return (() if shown else MASK_PARTS) + (() if seen else SIGHT_PARTS)

    def non_finite_samples(self, group: Sequence[ReferBatch], normaliser: Tensor) -> list[str]:
        """The samples that give a non-finite loss or gradient when they are alone in a batch."""
        model = self.accelerator.unwrap_model(self.model)
        if is_sharded(
            model
        ):  # processes have other samples, and all must gather the same layers: no single one is tried
            return [target.source or f"image {target.image_id}" for batch in group for target in batch.targets]
        return bad_samples(
            model, group, lambda batch, index: self._losses(model, one_question(batch, index), normaliser)[0]
        )

    def _losses(self, model: nn.Module, batch: ReferBatch, normaliser: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return refer_losses(
            model,
            self.normalise_tiles,
            self.normalise_sam,
            criterion=self.criterion,
            batch=batch,
            normaliser=normaliser,
            features=self.features,
        )


def refer_losses(
    model: nn.Module,
    normalise_tiles: Normalise,
    normalise_sam: Normalise,
    *,
    criterion: ReferCriterion,
    batch: ReferBatch,
    normaliser: Tensor,
    features: FrozenFeatures | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward and loss of one batch: the weighted total, and every component."""
    vision, sam = (None, None) if features is None else features.of(batch)
    outputs = model(
        normalise_tiles(batch.tiles_u8) if vision is None else None,
        batch.tiles_per_image,
        normalise_sam(batch.sam_pixels_u8) if sam is None else None,
        batch.input_ids,
        batch.attention_mask,
        batch.labels,
        regions=batch.regions,
        frames_per_image=batch.frames_per_image,
        grids=batch.grids,
        vision=vision,
        sam=sam,
    )
    masks = torch.cat([target.masks for target in batch.targets])  # [masks of all images, side, side]
    # the normaliser is (masks, labelled tokens) of the whole step
    losses = criterion(outputs, masks, normaliser[0], num_labels=normaliser[1], seeds=seeds_of(batch))
    return criterion.total(losses), losses


def refer_loss_sums(
    model: nn.Module,
    normalise_tiles: Normalise,
    normalise_sam: Normalise,
    *,
    criterion: ReferCriterion,
    batch: ReferBatch,
) -> Sums:
    """Every component of a batch as its sum over the masks, or over the labelled tokens, for `mean_losses`.

    Prompts come from the hidden state at `[SEG]`, as in inference.
    """
    # divided by 1, losses are sums
    ones = torch.ones(2, device=batch.input_ids.device)
    _, losses = refer_losses(model, normalise_tiles, normalise_sam, criterion=criterion, batch=batch, normaliser=ones)
    masks, labels = sum(len(target.masks) for target in batch.targets), int((batch.labels[:, 1:] >= 0).sum())
    return {name: (float(value), labels if name == "loss_language" else masks) for name, value in losses.items()}


def seeds_of(batch: ReferBatch) -> list[tuple[int, int]] | None:
    """(masks, seed) of each image with masks, for `ReferCriterion`; None if they have no seeds."""
    seeds = [(len(target.masks), target.seed) for target in batch.targets if len(target.masks)]
    known = [(count, seed) for count, seed in seeds if seed is not None]
    return known if len(known) == len(seeds) else None


def require_mask_gradient(
    criterion: ReferCriterion, losses: Mapping[str, Tensor], language: Sequence[nn.Parameter]
) -> None:
    """Check in a run's first step that the mask losses reach the language model through `[SEG]`.

    Raises:
        TrainingError: none of its trainable parameters gets a gradient from them.
    """
    if not any(criterion.weight_dict[name] for name in ("loss_mask", "loss_dice")):
        return  # the mask losses have weight 0
    masks = criterion.total({name: loss for name, loss in losses.items() if name in ("loss_mask", "loss_dice")})
    # the graph is kept: the step's own backward pass follows
    gradients = torch.autograd.grad(masks, list(language), retain_graph=True, allow_unused=True)
    if not any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients):
        raise TrainingError(
            "the mask losses give the language model's trainable parameters no gradient: [SEG] does not reach the mask "
            "decoder; do not freeze text_hidden_fcs, and check that the data has masks that are not empty"
        )


def one_question(batch: ReferBatch, index: int) -> ReferBatch:
    """One image of a batch, with the batch's padding."""
    at = slice(index, index + 1)
    # tiles and frames of all images are joined along the first axis: skip those of the images before
    first = sum(batch.tiles_per_image[:index])
    count = batch.tiles_per_image[index]
    regions = batch.regions
    frames = batch.frames_per_image
    seen = slice(sum(frames[:index]), sum(frames[: index + 1])) if frames else at
    return replace(
        batch,
        tiles_u8=batch.tiles_u8[first : first + count],
        tiles_per_image=(count,),
        sam_pixels_u8=batch.sam_pixels_u8[seen],
        input_ids=batch.input_ids[at],
        attention_mask=batch.attention_mask[at],
        labels=batch.labels[at],
        targets=batch.targets[at],
        regions=regions and Regions(regions.focal_per_image[at], regions.cells[at], regions.outlines[at]),
        keys=batch.keys[at],
        frames_per_image=frames[at],
        grids=batch.grids[at],
    )
