"""`deixis model ...`."""

from __future__ import annotations

from deixis.cli.command import Command
from deixis.options.model_bench import ModelBenchOptions
from deixis.options.model_convert import ModelConvertOptions
from deixis.options.model_export import ModelExportOptions
from deixis.options.model_info import ModelInfoOptions
from deixis.options.model_merge import (
    ModelEditAddOptions,
    ModelEditListOptions,
    ModelEditRemoveOptions,
    ModelMergeOptions,
)
from deixis.options.model_push import ModelPushOptions

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
  deixis model export raccoons --any-names --output raccoons.onnx          names are an input of the file
  deixis model export raccoons --precision int8 --output small.onnx
  deixis model export raccoons --output raccoons.xml                       OpenVINO
  deixis detect predict --model raccoons.onnx --images photos/

Needs pip install 'deixis[onnx]', for .xml also 'deixis[openvino]'. Input: pixel_values (batch, 3, height, width),
resized and normalised as the file's metadata state. Outputs: logits, boxes (cxcywh, relative to the image) and scores,
one per name. deixis itself is faster than its exports on a CPU: export to run elsewhere.
"""

BENCH = """
Examples:
  deixis model bench raccoons
  deixis model bench raccoons --size 800 1066 --files raccoons.onnx raccoons.xml
  deixis model bench raccoons --formats deixis deixis-bf16 --device cuda
"""

PUSH = """
Examples:
  deixis model push runs/raccoons --to me/raccoons --dry-run
  deixis model push runs/raccoons --to me/raccoons --private

Log in first, with hf auth login or the variable HF_TOKEN. Only the model's own files are sent.
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
        "deixis.recipes.model.export:export_model",
        "export a detector to ONNX or OpenVINO, and check the file",
        EXPORT,
        bare="model",
    ),
    Command(
        "model bench",
        ModelBenchOptions,
        "deixis.recipes.model.bench:bench_model",
        "measure a detector's latency on this machine, by format",
        BENCH,
        bare="model",
    ),
    Command(
        "model push",
        ModelPushOptions,
        "deixis.recipes.model.push:push",
        "send a model to the Hugging Face hub",
        PUSH,
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
