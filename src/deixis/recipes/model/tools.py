"""Convert and merge models."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from deixis.console import print_text
from deixis.errors import ModelError, OptionError
from deixis.models.adapters import CONFIG, base_of
from deixis.models.checkpoints import (
    SUFFIXES,
    build_bundle,
    detector_folder,
    load_any_detector,
    read_checkpoint,
    save_checkpoint,
    save_detector,
)
from deixis.models.interpolation import interpolate
from deixis.models.model_card import write_card
from deixis.models.sa2va import save_sa2va
from deixis.models.segmenter_adapter import is_segmenter_adapter, load_adapted_segmenter
from deixis.options.model_convert import TOKENIZER, ModelConvertOptions
from deixis.options.model_merge import ModelMergeOptions
from deixis.recipes.model.info import checkpoint_lines
from deixis.recipes.model.last_weights import is_last_checkpoint, write_last_weights
from deixis.recipes.model.segmenter import convert_segmenter, layout_of


def convert_model(options: ModelConvertOptions) -> None:
    """Write a checkpoint in another layout, and say what was recognised and what was left out.

    Raises:
        DeixisError: options, files or tensors cannot be used.
    """
    options.check()
    must_not_exist(options.output)
    if is_last_checkpoint(options.model):
        write_last_weights(options)
        return
    foreign = Path(options.model).suffix in SUFFIXES and not Path(options.model).is_dir()
    if not foreign and (options.to == "sa2va" or layout_of(options.model)):
        convert_segmenter(options)
        return
    if foreign:
        checkpoint = read_checkpoint(options.model)
        print_text("\n".join(checkpoint_lines(checkpoint, options.model)))
        if options.dry_run:
            return
        bundle = replace(
            build_bundle(checkpoint, options.tokenizer or TOKENIZER, options.model), image_size=options.image_size
        )
    elif options.to == "transformers":
        raise OptionError(
            f"--model: {options.model} is no checkpoint file {'|'.join(SUFFIXES)}; give --to idea, mmdetection or sa2va"
        )
    else:
        bundle = load_any_detector(options.model)
        if options.dry_run:
            return
    if options.to == "transformers":
        save_detector(bundle, options.output)
        write_card(options.output)
    else:
        save_checkpoint(bundle, options.output, options.to)
        if bundle.sinks is not None:
            print_text("left out: the attention sinks, which only folders of deixis and ONNX files hold")
    print_text(f"wrote {options.output}")


def merge_model(options: ModelMergeOptions) -> None:
    """Write an adapter merged into its base, or the weights in between.

    Raises:
        DeixisError: options or models cannot be used.
    """
    options.check()
    must_not_exist(options.output)
    if adapter := _segmenter_adapter(options.model):
        merge_segmenter(options, adapter)
        return
    bundle = load_any_detector(options.model)
    if options.weight != 1 or options.base:
        base = options.base or _base_of(options.model)
        bundle = interpolate(load_any_detector(base), bundle, options.weight)
        print_text(f"{options.weight:g} of the way from {base} to {options.model}")
    if not options.dry_run:
        save_detector(bundle, options.output)
        write_card(options.output)
        print_text(f"wrote {options.output}")


def _segmenter_adapter(model: str) -> Path | None:
    """The folder of a segmenter's adapter; None for anything else, which is read, or reported, as a detector."""
    with suppress(ModelError):
        folder = detector_folder(model)
        return folder if is_segmenter_adapter(folder) else None
    return None


def merge_segmenter(options: ModelMergeOptions, adapter: Path) -> None:
    """Write the adapter of a segmenter, by its folder, merged into its base."""
    if options.weight != 1 or options.base:
        raise OptionError("--weight and --base are for detectors; the adapter of a segmenter is merged whole")
    bundle = load_adapted_segmenter(adapter)
    if not options.dry_run:
        save_sa2va(bundle, options.output)
        write_card(options.output)
        print_text(f"wrote {options.output}")


def _base_of(model: str) -> str:
    folder = detector_folder(model)
    if not (folder / CONFIG).is_file():
        raise OptionError("--base is required: the model that the fine-tuning of --model started from")
    return base_of(folder)


def must_not_exist(path: Path) -> None:
    """Raises OptionError for an output that is there already."""
    if path.exists():
        raise OptionError(f"--output: {path} exists; name something that does not")
