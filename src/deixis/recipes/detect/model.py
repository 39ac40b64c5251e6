"""What a detector run starts from and writes: whole models and adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.detect.denoising import make_denoising_queries
from deixis.losses.detection import PRESETS, DetectionCriterion, build_criterion
from deixis.models.adapters import add_lora, save_adapter
from deixis.models.builtin import model_of_run
from deixis.models.checkpoints import (
    DetectorBundle,
    load_any_detector,
    save_detector,
    train_learned_names,
    with_learned_names,
)
from deixis.models.edits.closed_form import train_edited_layers
from deixis.models.freezing import freeze
from deixis.models.model_card import write_card
from deixis.models.model_record import trained_record, write_record
from deixis.options.detect_train import DetectLora, DetectLoss
from deixis.training.checkpoint import replacing_folder
from deixis.training.tasks.detector import Denoise


def prepare_model(
    model: str,
    lora: DetectLora,
    rates: Mapping[str, float],
    *,
    image_size: tuple[int, int] | None = None,
    gradient_checkpointing: bool = False,
    learned_names: Sequence[str] = (),
    edited: bool = False,
    decoder: str | None = None,
) -> DetectorBundle:
    """The detector that a run trains, with parts frozen or adapters added.

    Args:
        rates: learning rate of each part; those of 0 are frozen.
        image_size: shorter and longest side in pixels, in place of the model's own.
        learned_names: their token embeddings are all that trains.
        edited: the layers of model editing are all that trains.
        decoder: "sequence" or "parallel", in place of the model's own.
    """
    bundle = load_any_detector(model)
    if image_size is not None:
        bundle = replace(bundle, image_size=image_size)
    if decoder is not None:
        bundle.model.parallel = decoder == "parallel"
    if learned_names:
        bundle = with_learned_names(bundle, learned_names)
        train_learned_names(bundle, learned_names)
    elif edited:
        train_edited_layers(bundle.model)
    elif lora.lora:  # adding adapters freezes everything else
        add_lora(bundle.model, lora.lora_r, lora.lora_alpha, dropout=lora.lora_dropout, targets=lora.lora_targets)
    else:
        freeze(bundle.model, [part for part, rate in rates.items() if rate == 0])
    bundle.model.gradient_checkpointing = gradient_checkpointing
    return bundle


def make_criterion(loss: DetectLoss, bundle: DetectorBundle) -> DetectionCriterion:
    """The preset of the model's flavour, or the one chosen, with the user's own weights in place of its."""
    flavour = bundle.model.config.model_type.replace("-", "_")
    preset = PRESETS[flavour if loss.loss_preset == "auto" else loss.loss_preset]
    own: dict[str, float | None] = {
        "weight_class": loss.weight_class,
        "weight_l1": loss.weight_box,
        "weight_giou": loss.weight_giou,
        "cost_class": loss.cost_class,
        "cost_l1": loss.cost_box,
        "cost_giou": loss.cost_giou,
        "alpha": loss.focal_alpha,
        "gamma": loss.focal_gamma,
    }
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    preset = replace(preset, **given)
    layers = bundle.model.config.decoder_layers
    return build_criterion(preset, loss.encoder_loss, layers, denoising=loss.denoising_queries > 0)


def make_denoise(loss: DetectLoss) -> Denoise | None:
    """What makes the denoising queries of a batch, if there shall be any."""
    if not loss.denoising_queries:
        return None
    return partial(make_denoising_queries, count=loss.denoising_queries)


def save_trained(
    bundle: DetectorBundle, folder: Path, names: Sequence[str] = (), *, adapter_of: str | None = None
) -> None:
    """Write what was trained, all or nothing: the whole model, or the adapter alone; with its record and its card.

    Args:
        names: class names of the training data.
        adapter_of: the base model, where only adapters were trained.
    """
    with replacing_folder(folder) as fresh:
        if adapter_of is not None:
            save_adapter(bundle.model, fresh, base=str(model_of_run(adapter_of)))
            write_record(fresh, trained_record(bundle.record, "detector", names))
            write_card(fresh, folder.name)
        else:
            write_trained(bundle, fresh, names, name=folder.name)


def write_trained(bundle: DetectorBundle, folder: Path, names: Sequence[str], *, name: str) -> None:
    """Write a whole trained model into a new folder, which gets another name later; with its record and its card."""
    save_detector(bundle, folder)
    write_record(folder, trained_record(bundle.record, "detector", names))
    write_card(folder, name)
