"""The weights of `checkpoints/last` as a folder: averaged ones where the run averages them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from deixis.console import print_text
from deixis.errors import OptionError, TrainingError
from deixis.models.model_record import read_record
from deixis.options.detect_train import DetectLora, DetectParts, DetectTrainOptions
from deixis.options.groups import Lora
from deixis.options.model_convert import ModelConvertOptions
from deixis.options.refer_train import ReferParts, ReferTrainOptions
from deixis.options.yaml_files import read_options
from deixis.recipes.detect.model import prepare_model, save_trained
from deixis.recipes.detect.policy import learning_rates
from deixis.recipes.refer.model import prepare_segmenter, save_segmenter
from deixis.training.checkpoint import MODEL, TRAINING, require_same_tensors
from deixis.training.checkpoint.checks import require_average

SEGMENTER_KEY = "behaviour"  # an option of segmenters' runs alone


def is_last_checkpoint(model: str) -> bool:
    """Whether a folder is a run's `checkpoints/last`, which holds no model folder but all that a run goes on from."""
    return (Path(model) / TRAINING).is_file() and (Path(model) / MODEL).is_file()


def write_last_weights(options: ModelConvertOptions) -> None:
    """Write the weights of a run as it stands: a whole model, or its adapter where it trains one.

    Raises:
        OptionError: another layout is asked for, or the run's config.yaml is not there or cannot be read.
        TrainingError: the checkpoint is damaged, or one of another model.
    """
    if options.to != "transformers":
        raise OptionError(
            f"--to: got {options.to!r} for a checkpoint of a run; write its folder first, then convert that"
        )
    folder = Path(options.model)
    config = folder.resolve().parents[1] / "config.yaml"
    if not config.is_file():
        raise OptionError(f"--model: {config} is missing; name the checkpoints/last of a run as it was written")
    averaged = _write(folder, config, options.output, options.dry_run)
    weights = "averaged weights" if averaged else "weights, as the run averages none"
    print_text(f"{'would write' if options.dry_run else 'wrote'} {options.output}: {weights}")


def _write(folder: Path, config: Path, output: Path, dry_run: bool) -> bool:
    """Whether the weights are averaged ones."""
    if f"\n{SEGMENTER_KEY}:" in config.read_text(encoding="utf-8", errors="replace"):
        trained = read_options(ReferTrainOptions, config)
        groups = trained.group(ReferParts), trained.group(Lora)
        segmenter = prepare_segmenter(*groups, trained.behaviour, seed=trained.seed)
        averaged = _fill(segmenter.model, folder)
        if not dry_run:
            save_segmenter(segmenter, output)
        return averaged
    options = read_options(DetectTrainOptions, config)
    lora = options.group(DetectLora)
    names = read_record(folder.resolve().parent / "best").names
    rates = learning_rates(options.group(DetectParts), lora, options.learning_rate, keep=options.keep)
    learned = names if options.keep == "prompt" else ()
    detector = prepare_model(
        options.model,
        lora,
        rates,
        image_size=options.image_size,
        learned_names=learned,
        edited=options.keep == "edit",
        decoder=options.decoder,
    )
    averaged = _fill(detector.model, folder)
    if not dry_run:
        save_trained(detector, output, names, adapter_of=options.model if options.lora else None)
    return averaged


def _fill(model: torch.nn.Module, folder: Path) -> bool:
    try:
        tensors = load_file(folder / MODEL)
        training = torch.load(folder / TRAINING, map_location="cpu", weights_only=True)
        averages = dict(training["average"])
        require_same_tensors(model, tensors, folder)
        own = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        if averages:
            require_average(own, averages, training["average_updates"])
    except TrainingError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TrainingError(f"{folder}: damaged ({reason})") from error
    model.load_state_dict(tensors, strict=False)  # a shared tensor is saved once
    with torch.no_grad():
        for name, average in averages.items():
            own[name].copy_(average)  # only what trains has an average
    return bool(averages)
