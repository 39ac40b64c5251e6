"""Export a detector to ONNX or OpenVINO and compare the file with it; export a segmenter's SAM 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deixis.batch_records import Prompt
from deixis.console import print_text
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.wordings import Wordings, worded
from deixis.errors import ModelError, OptionError
from deixis.models.checkpoints import DetectorBundle, load_any_detector, stored_record
from deixis.models.onnx.check import TOLERANCE, compare_export, passes
from deixis.models.onnx.export import export_detector
from deixis.models.onnx.facts import prompt_len
from deixis.models.onnx.runtimes import EXPORTS, OPENVINO
from deixis.models.onnx.sam import SAM_FILES, compare_sam, export_sam
from deixis.models.sa2va import load_sa2va
from deixis.options.checks import require
from deixis.options.model_export import DETECTOR, ModelExportOptions
from deixis.recipes.detect.names import names_or_stored
from deixis.recipes.model.segmenter import layout_of
from deixis.recipes.model.tools import must_not_exist

EXAMPLE = ("person", "traffic light")
"""Names for the check of a file that can be asked for any."""


def export_model(options: ModelExportOptions) -> None:
    """Write the file and compare it with the model in its runtime.

    Raises:
        DeixisError: options or model cannot be used, or the check fails; the file then stays, to be looked into.
    """
    options.check()
    if not options.overwrite:
        must_not_exist(options.output)
    if layout_of(options.model):
        _export_sam(options)
        return
    suffix = options.output.suffix.lower()
    require(suffix in EXPORTS, "output", options.output, "a file .onnx or .xml")
    if options.precision == "int8":
        require(suffix != OPENVINO, "precision", options.precision, "fp32 or fp16 for OpenVINO's .xml")
    bundle = load_any_detector(options.model)
    asked = _asked(options)
    words, rows = worded(list(asked), asked, bundle.prompt_tokenizer)
    prompt = build_prompt(words, bundle.prompt_tokenizer, prompt_len(bundle))
    shown = "any names" if options.any_names else repr(prompt.caption)
    if options.dry_run:
        print_text(f"would write {options.output} for {shown}, {len(prompt.input_ids)} tokens")
        return
    any_names, precision = options.any_names, options.precision
    export_detector(bundle, list(asked), options.output, wordings=asked, any_names=any_names, precision=precision)
    size_mb = size_of(options.output) / 1e6
    kind = "" if precision == "fp32" else f"{precision}, "
    print_text(f"wrote {options.output}, {size_mb:.0f} MB, {kind}for {shown}")
    _compare(options, bundle, prompt, rows=() if any_names else rows)


def _asked(options: ModelExportOptions) -> Wordings:
    """The classes and their wordings; of a file that can be asked for any, those of the check."""
    if options.any_names and not options.names and not stored_record(options.model).names:
        return {name: (name,) for name in EXAMPLE}
    return names_or_stored(options.names, options.model)


def _export_sam(options: ModelExportOptions) -> None:
    """Write a segmenter's SAM 2 as a folder of three files and compare them with it."""
    given = [f"--{name.replace('_', '-')}" for name in ("names", "any_names") if getattr(options, name)]
    given += ["--precision"] if options.precision != "fp32" else []
    if given:
        raise OptionError(f"{', '.join(given)}: for detectors; {options.model} is a segmenter")
    folder = Path("sam") if options.output == DETECTOR else options.output
    if folder.exists() and options.overwrite:
        raise OptionError(f"--overwrite: replaces one file, and {folder} is a folder; remove it or name another")
    bundle = load_sa2va(options.model)
    if options.dry_run:
        print_text(f"would write {', '.join(SAM_FILES)} into {folder}")
        return
    export_sam(bundle, folder)
    found = compare_sam(bundle, folder)
    for name, difference in found.items():
        size_mb = (folder / name).stat().st_size / 1e6
        print_text(f"wrote {folder / name}, {size_mb:.0f} MB; onnxruntime against PyTorch: {difference:.1e}")
    # one by one: `max` passes over NaN, which is within no tolerance
    if not all(difference <= TOLERANCE["fp32"] for difference in found.values()):
        raise ModelError(f"{folder}: differs from the model by more than {TOLERANCE['fp32']:g}; report it")


def size_of(path: Path) -> int:
    """Bytes of an exported file, with those that OpenVINO keeps beside it."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix.lower() == OPENVINO else 0)


def check_sizes(bundle: DetectorBundle) -> list[tuple[int, int]]:
    """A wide and a tall image, of odd sizes, within the model's own image size."""
    short_px, long_px = bundle.image_size
    # Odd sizes show what was fixed to the shapes of the example when the file was traced.
    return [(short_px, (short_px + long_px) // 2), (short_px + (long_px - short_px) // 4 - 1, short_px - 3)]


def _compare(options: ModelExportOptions, bundle: DetectorBundle, prompt: Prompt, *, rows: Sequence[int]) -> None:
    """Print how the file differs from the model.

    Raises:
        ModelError: it differs too much.
    """
    runtime = "OpenVINO" if options.output.suffix.lower() == OPENVINO else "onnxruntime"
    precision = options.precision
    found = compare_export(options.output, bundle, prompt, sizes_hw=check_sizes(bundle), precision=precision, rows=rows)
    for each in found:
        height, width = each.size_hw
        gaps = f"logits {each.logits:.1e}, boxes {each.boxes:.1e}, scores {each.scores:.1e}"
        print_text(f"{runtime} against PyTorch at {height} x {width}: {gaps}; {100 * each.matched:.1f}% match")
    if not passes(found, precision):
        least = min(each.matched for each in found)
        raise ModelError(
            f"{options.output}: {100 * least:.1f}% of what it finds is within {TOLERANCE[precision]:g} of the model, "
            "expected nearly all; report it"
        )
    if precision == "int8":
        print_text(f"eight bits change scores: compare AP with deixis detect eval --model {options.output} --data ...")
