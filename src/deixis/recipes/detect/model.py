"""What a detector run starts from and writes: whole models and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from deixis.data.detect.denoising import make_denoising_queries
from deixis.losses.detection import PRESETS, DetectionCriterion, build_criterion
from deixis.models.adapters import add_lora, save_adapter
from deixis.models.builtin import model_of_run
from deixis.models.checkpoints import load_any_detector
from deixis.models.freezing import freeze
from deixis.models.grounding_dino import GroundingDinoBundle, save_grounding_dino
from deixis.models.model_card import write_card
from deixis.models.model_record import trained_record, write_record
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.policy import learning_rates
from deixis.training.checkpoint import replacing_folder
from deixis.training.detector_task import Denoise


def prepare_model(options: DetectTrainOptions) -> GroundingDinoBundle:
    """The detector that a run trains, by its resolved options: parts frozen or adapters added."""
    bundle = load_any_detector(options.model)
    if options.image_size is not None:
        bundle = replace(bundle, image_size=options.image_size)
    if options.lora:
        add_lora(bundle.model, options.lora_r, options.lora_alpha, options.lora_dropout, options.lora_targets)
    else:
        freeze(bundle.model, [part for part, rate in learning_rates(options).items() if rate == 0])
    if options.gradient_checkpointing:
        bundle.model.gradient_checkpointing = True
    return bundle


def make_criterion(options: DetectTrainOptions, bundle: GroundingDinoBundle) -> DetectionCriterion:
    """The preset of the model's flavour, or the one chosen, with the user's own weights in place of its."""
    flavour = bundle.model.config.model_type.replace("-", "_")
    preset = PRESETS[flavour if options.loss_preset == "auto" else options.loss_preset]
    own: dict[str, float | None] = {
        "weight_class": options.weight_class,
        "weight_l1": options.weight_box,
        "weight_giou": options.weight_giou,
        "cost_class": options.cost_class,
        "cost_l1": options.cost_box,
        "cost_giou": options.cost_giou,
        "alpha": options.focal_alpha,
        "gamma": options.focal_gamma,
    }
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    preset = replace(preset, **given)
    layers = bundle.model.config.decoder_layers
    return build_criterion(preset, options.encoder_loss, layers, denoising=options.denoising_queries > 0)


def make_denoise(options: DetectTrainOptions) -> Denoise | None:
    """What makes the denoising queries of a batch, if there shall be any."""
    if not options.denoising_queries:
        return None
    return partial(
        make_denoising_queries,
        count=options.denoising_queries,
        label_noise=options.denoising_label_noise,
        box_noise=options.denoising_box_noise,
    )


def save_trained(
    options: DetectTrainOptions, bundle: GroundingDinoBundle, folder: Path, names: Sequence[str] = ()
) -> None:
    """Write what was trained, all or nothing: the whole model, or the adapter alone; with its record and its card.

    Args:
        names: class names of the training data.
    """
    with replacing_folder(folder) as fresh:
        if options.lora:
            save_adapter(bundle.model, fresh, base=str(model_of_run(options.model)))
        else:
            save_grounding_dino(bundle, fresh)
        write_record(fresh, trained_record(bundle.record, "detector", names))
        write_card(fresh, folder.name)
