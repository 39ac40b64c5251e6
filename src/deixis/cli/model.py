"""`deixis model ...`."""

from __future__ import annotations

from deixis.cli.command import Command
from deixis.options.model_convert import ModelConvertOptions
from deixis.options.model_export import ModelExportOptions
from deixis.options.model_info import ModelInfoOptions
from deixis.options.model_merge import (
    ModelEditAddOptions,
    ModelEditListOptions,
    ModelEditRemoveOptions,
    ModelMergeOptions,
)

CONVERT = """
Examples:
  deixis model convert groundingdino_swint_ogc.pth --output grounding_dino_t
  deixis model convert mm_grounding_dino_l.pth --tokenizer bert-base-uncased/ --output mm_l --dry-run
  deixis model convert runs/raccoons/teachers/grounding_dino --to mmdetection --output raccoons.pth
  deixis model convert runs/segmenter --to sa2va --output released
  deixis model convert runs/raccoons/checkpoints/last --output averaged    its weights, averaged with --ema-decay

Every tensor is placed, or reported by its name. Code in the files is never run.
"""

INFO = """
Examples:
  deixis model info
  deixis model info runs/raccoons/teachers/grounding_dino_lora
  deixis model info groundingdino_swint_ogc.pth
  deixis model info runs/segmenter
"""

MERGE = """
Examples:
  deixis model merge runs/raccoons/teachers/grounding_dino_lora --output raccoons
  deixis model merge raccoons --base IDEA-Research/grounding-dino-tiny --weight 0.7 --output between
"""

EXPORT = """
Examples:
  deixis model export raccoons --names raccoon cat --output raccoons.onnx
  deixis model export --names "red star" --output star.onnx --check-sizes 128 160 200 96

Needs pip install 'deixis[onnx]'. Input: pixel_values (1, 3, height, width), resized and normalised as the file's
metadata state. Outputs: logits, boxes (cxcywh, relative to the image) and scores, one per name.
"""

EDIT = """
Examples:
  deixis detect train --data raccoons.json --model base/ --keep edit --experiment-name raccoons
  deixis model edit list runs/raccoons
  deixis model edit add base/ --tasks runs/raccoons runs/cars --output both
  deixis model edit remove both --tasks cars --output raccoons_alone

Tasks can be added and removed in any order; without a task the weights are the first ones again.
"""

COMMANDS = (
    Command(
        "model convert",
        ModelConvertOptions,
        "deixis.recipes.model.tools:convert_model",
        "import a checkpoint of IDEA-Research or MMDetection, or export to its layout",
        CONVERT,
        bare="model",
    ),
    Command(
        "model info",
        ModelInfoOptions,
        "deixis.recipes.model.info:model_info",
        "print what a model is: family, sizes, parts, tokenizer",
        INFO,
        bare="model",
    ),
    Command(
        "model merge",
        ModelMergeOptions,
        "deixis.recipes.model.tools:merge_model",
        "merge an adapter into its model, or average a model with its base",
        MERGE,
        bare="model",
    ),
    Command(
        "model export",
        ModelExportOptions,
        "deixis.recipes.model.tools:export_model",
        "export a detector to ONNX for fixed names, and check it in onnxruntime",
        EXPORT,
        bare="model",
    ),
    *(
        Command(f"model edit {action}", options, f"deixis.recipes.model.edit:{action}_edits", text, EDIT, bare="model")
        for action, options, text in (
            ("add", ModelEditAddOptions, "add names that were learnt with --keep edit, without training"),
            ("remove", ModelEditRemoveOptions, "remove such names again"),
            ("list", ModelEditListOptions, "list them"),
        )
    ),
)
