"""`deixis model convert | info | merge | export`."""

from __future__ import annotations

from collections.abc import Sequence

from deixis.cli.arguments import parse
from deixis.options.model import (
    ModelConvertOptions,
    ModelExportOptions,
    ModelInfoOptions,
    ModelMergeOptions,
)

CONVERT_EXAMPLES = """
Examples:
  deixis model convert groundingdino_swint_ogc.pth --output grounding_dino_t
  deixis model convert mm_grounding_dino_l.pth --tokenizer bert-base-uncased/ --output mm_l --dry-run
  deixis model convert runs/raccoons/teachers/grounding_dino --to mmdetection --output raccoons.pth
  deixis model convert runs/segmenter --to sa2va --output released
  deixis model convert runs/raccoons/checkpoints/last --output averaged    its weights, averaged with --ema-decay

Every tensor finds its place or is listed by name. Files are read without running code in them.
"""

INFO_EXAMPLES = """
Examples:
  deixis model info
  deixis model info runs/raccoons/teachers/grounding_dino_lora
  deixis model info groundingdino_swint_ogc.pth
  deixis model info runs/segmenter
"""

MERGE_EXAMPLES = """
Examples:
  deixis model merge runs/raccoons/teachers/grounding_dino_lora --output raccoons
  deixis model merge raccoons --base IDEA-Research/grounding-dino-tiny --weight 0.7 --output between
"""

EXPORT_EXAMPLES = """
Examples:
  deixis model export raccoons --names raccoon cat --output raccoons.onnx
  deixis model export --names "red star" --output star.onnx --check-sizes 128 160 200 96

Needs pip install 'deixis[onnx]'. Input: pixel_values (1, 3, height, width), resized and normalised as the file's
metadata say. Outputs: logits, boxes (cxcywh over the image's size) and scores, one a name.
"""


def convert(arguments: Sequence[str]) -> int:
    """From one checkpoint layout to another."""
    options = parse(ModelConvertOptions, with_model(arguments), "model convert", CONVERT_EXAMPLES)
    options.check()
    from deixis.recipes.model.tools import convert_model

    convert_model(options)
    return 0


def info(arguments: Sequence[str]) -> int:
    """What a model is."""
    options = parse(ModelInfoOptions, with_model(arguments), "model info", INFO_EXAMPLES)
    options.check()
    from deixis.recipes.model.info import model_info

    model_info(options)
    return 0


def merge(arguments: Sequence[str]) -> int:
    """An adapter into its base, or part of the way from a base to a tuned model."""
    options = parse(ModelMergeOptions, with_model(arguments), "model merge", MERGE_EXAMPLES)
    options.check()
    from deixis.recipes.model.tools import merge_model

    merge_model(options)
    return 0


def export(arguments: Sequence[str]) -> int:
    """A detector as ONNX."""
    options = parse(ModelExportOptions, with_model(arguments), "model export", EXPORT_EXAMPLES)
    options.check()
    from deixis.recipes.model.tools import export_model

    export_model(options)
    return 0


def with_model(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--model` before a first word that is no flag.

    >>> with_model(["runs/mine", "--output", "x"])
    ['--model', 'runs/mine', '--output', 'x']
    """
    return ["--model", *arguments] if arguments and not arguments[0].startswith("-") else list(arguments)
