"""What measures a run's validation losses: the batches of its validation data, and the criterion of its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator

from deixis.data.batching.loading import load_batches
from deixis.data.detect.collate import SampleDataset, collate_pairs
from deixis.data.detect.transforms import eval_transform
from deixis.data.refer.collate import collate_questions
from deixis.data.refer.loading import QuestionDataset
from deixis.losses.detection import DetectionCriterion
from deixis.losses.refer import ReferCriterion
from deixis.models.checkpoints import DetectorBundle
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle
from deixis.options.refer_train import Conversations
from deixis.recipes.detect.data.prompts import FittedTransform, TrainingPrompts
from deixis.recipes.refer.data.feed import views_of
from deixis.records import Dataset
from deixis.refer_records import ReferDataset, ReferSample
from deixis.training.tasks.detector import loss_sums
from deixis.training.tasks.segmenter import refer_loss_sums
from deixis.training.validation import batches_of, mean_losses, spread_evenly
from deixis.video_records import Clip

Losses = Callable[[], dict[str, dict[str, float]]]
"""`{"losses": {name: mean, "loss": weighted sum}}`, for the log, beside the metrics; empty where turned off."""

NO_LIMIT = 2**31  # of a conversation's tokens: --max-tokens stops training, not an evaluation
MAX_LOSS = 700.0  # whose exponential is still a number
DRAWS_SEED = 0  # of prompts with negative names, of sentences and of mask points: the same at each evaluation


def detector_validation_losses(
    bundle: DetectorBundle,
    criterion: DetectionCriterion,
    prompts: TrainingPrompts,
    validation: Dataset,
    accelerator: Accelerator,
    *,
    images: int,
    batch_size: int,
) -> Losses:
    """Measures losses of images as evaluation sees them: not augmented, names in their own order.

    Args:
        images: how many are measured, spread evenly; 0 disables.
    """
    plain = replace(prompts, shuffle=False)  # names in one order: the figure must not move by itself
    transform = FittedTransform(eval_transform(*bundle.image_size), plain)
    dataset = SampleDataset(validation, transform, plain, DRAWS_SEED)
    batches = batches_of(spread_evenly(len(validation), images), batch_size, accelerator)

    def measure() -> dict[str, dict[str, float]]:
        loaded = (batch.to(accelerator.device) for batch in load_batches(dataset, batches, collate_pairs))
        found = mean_losses(
            loaded, lambda batch: loss_sums(bundle.model, bundle.normalise, criterion, batch=batch), accelerator
        )
        return {"losses": with_total(found, criterion)}

    return measure if images else dict


def refer_validation_losses(
    bundle: Sa2vaBundle,
    criterion: ReferCriterion,
    validation: ReferDataset,
    accelerator: Accelerator,
    conversations: Conversations,
    *,
    images: int,
    batch_size: int,
    max_val_images: int | None = None,
) -> Losses:
    """Measures losses of conversations that are the same at each evaluation.

    Args:
        images: how many are measured, spread evenly; 0 disables.
        max_val_images: only the first are measured.
    """
    tokens = ConversationTokens.of(bundle)
    dataset = QuestionDataset(
        validation,
        conversations.max_masks,
        DRAWS_SEED,
        bundle.behaviour,
        conversations.caption_share,
        conversations.clip_frames,
    )
    measured = min(len(validation), max_val_images or len(validation))
    chosen = spread_evenly(measured, images) if images else []
    asked = [index for index in chosen if _speaks(validation[index])]
    batches = batches_of(asked, batch_size, accelerator)
    collate = partial(
        collate_questions,
        encode=tokens,
        views=views_of(bundle, conversations.max_tiles),
        pad_token_id=tokens.pad_token_id,
        max_tokens=NO_LIMIT,
    )

    def measure() -> dict[str, dict[str, float]]:
        loader = load_batches(dataset, batches, collate)
        found = mean_losses(
            (batch.to(accelerator.device) for batch in loader),
            lambda batch: refer_loss_sums(
                bundle.model, bundle.normalise_tiles, bundle.normalise_sam, criterion=criterion, batch=batch
            ),
            accelerator,
        )
        return {"losses": with_total(found, criterion)}

    return measure if images else dict


def _speaks(sample: ReferSample | Clip) -> bool:
    return bool(sample.chat) or any(expression.texts for expression in sample.expressions)


def chat_measure(
    bundle: Sa2vaBundle,
    criterion: ReferCriterion,
    chat: ReferDataset | None,
    accelerator: Accelerator,
    conversations: Conversations,
    *,
    batch_size: int,
) -> Callable[[], dict[str, float]]:
    """Measures the loss per answered token of conversations, and the perplexity, its exponential; nothing of None."""
    if chat is None:
        return dict
    measured = refer_validation_losses(
        bundle, criterion, chat, accelerator, conversations, images=len(chat), batch_size=batch_size
    )

    def measure() -> dict[str, float]:
        loss = measured()["losses"]["loss_language"]
        return {"chat_loss": loss, "chat_perplexity": math.exp(min(loss, MAX_LOSS))}

    return measure


def with_total(losses: dict[str, float], criterion: DetectionCriterion | ReferCriterion) -> dict[str, float]:
    """The losses, and before them `loss`, their weighted sum; nothing where nothing was measured."""
    if not losses:
        return {}
    total = criterion.total({name: torch.tensor(value) for name, value in losses.items()})
    return {"loss": float(total), **losses}
