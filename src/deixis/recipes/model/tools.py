"""Convert, merge and export detectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.console import print_text
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.wordings import worded
from deixis.errors import ModelError, OptionError
from deixis.models.adapters import CONFIG, base_of
from deixis.models.builtin import model_of_run
from deixis.models.checkpoints import (
    SUFFIXES,
    DetectorBundle,
    build_bundle,
    load_any_detector,
    read_checkpoint,
    save_checkpoint,
    save_detector,
)
from deixis.models.interpolation import interpolate
from deixis.models.model_card import write_card
from deixis.models.onnx.export import TOLERANCE, compare_onnx, export_onnx
from deixis.models.sa2va import save_sa2va
from deixis.models.segmenter_adapter import is_segmenter_adapter, load_adapted_segmenter
from deixis.options.model_convert import TOKENIZER, ModelConvertOptions
from deixis.options.model_export import ModelExportOptions
from deixis.options.model_merge import ModelMergeOptions
from deixis.recipes.detect.names import names_or_stored
from deixis.recipes.model.info import checkpoint_lines
from deixis.recipes.model.last_weights import is_last_checkpoint, write_last_weights
from deixis.recipes.model.segmenter import convert_segmenter, layout_of


def convert_model(options: ModelConvertOptions) -> None:
    """Write a checkpoint in another layout, and say what was recognised and what was left out.

    Raises:
        DeixisError: options, files or tensors cannot be used.
    """
    options.check()
    _must_not_exist(options.output)
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
    _must_not_exist(options.output)
    if is_segmenter_adapter(options.model):
        merge_segmenter(options)
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


def merge_segmenter(options: ModelMergeOptions) -> None:
    """Write the adapter of a segmenter merged into its base."""
    if options.weight != 1 or options.base:
        raise OptionError("--weight and --base are for detectors; the adapter of a segmenter is merged whole")
    bundle = load_adapted_segmenter(options.model)
    if not options.dry_run:
        save_sa2va(bundle, options.output)
        write_card(options.output)
        print_text(f"wrote {options.output}")


def export_model(options: ModelExportOptions) -> None:
    """Write ONNX and check it against PyTorch.

    Raises:
        DeixisError: options or model cannot be used, or the check fails; the file then stays, to be looked into.
    """
    options.check()
    if not options.overwrite:
        _must_not_exist(options.output)
    asked = names_or_stored(options.names, options.model)
    bundle = load_any_detector(options.model)
    if options.dry_run:
        words, _ = worded(list(asked), asked, bundle.prompt_tokenizer)
        sinks = 0 if bundle.sinks is None else len(bundle.sinks)
        prompt = build_prompt(words, bundle.prompt_tokenizer, bundle.model.max_text_len - sinks)
        print_text(f"would write {options.output} for {prompt.caption!r}, {len(prompt.input_ids)} tokens")
        return
    prompt = export_onnx(bundle, list(asked), options.output, wordings=asked)
    _, rows = worded(list(asked), asked, bundle.prompt_tokenizer)
    print_text(f"wrote {options.output}, {options.output.stat().st_size / 1e6:.0f} MB, for {prompt.caption!r}")
    sizes_hw = options.check_sizes or check_sizes(bundle)
    differences = compare_onnx(options.output, bundle, prompt, sizes_hw=sizes_hw, rows=rows)
    for found in differences:
        height, width = found.size_hw
        gaps = f"logits {found.logits:.1e}, boxes {found.boxes:.1e}, scores {found.scores:.1e}"
        print_text(f"onnxruntime against PyTorch at {height} x {width}: {gaps}")
    if any(not max(found[1:]) <= TOLERANCE for found in differences):
        raise ModelError(
            f"{options.output}: differs from the model by more than {TOLERANCE:g}; where two proposals score nearly "
            "alike, rounding exchanges them: try other --check-sizes, and report it if those differ too"
        )


def check_sizes(bundle: DetectorBundle) -> list[tuple[int, int]]:
    """A wide and a tall image, of odd sizes, within the model's own image size."""
    short_px, long_px = bundle.image_size
    return [(short_px, (short_px + long_px) // 2), (short_px + (long_px - short_px) // 4 - 1, short_px - 3)]


def _base_of(model: str) -> str:
    folder = Path(model_of_run(model))
    if not (folder / CONFIG).is_file():
        raise OptionError("--base is required: the model that the fine-tuning of --model started from")
    return base_of(folder)


def _must_not_exist(path: Path) -> None:
    if path.exists():
        raise OptionError(f"--output: {path} exists; name something that does not")
