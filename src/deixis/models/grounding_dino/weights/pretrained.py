"""Folders in transformers' layout, read and written completely or not at all.

config.json                the network's configuration; model_type is grounding-dino or mm-grounding-dino
model.safetensors          weights, or several files named in model.safetensors.index.json
preprocessor_config.json   image size, mean and std (newer transformers: processor_config.json)
tokenizer.json ...         the tokenizer
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoConfig, MMGroundingDinoConfig
from transformers.utils import logging as transformers_logging

from deixis.errors import ModelError
from deixis.models.folders import model_folder, read_object, read_tokenizer, read_weights, reads_model, staged_folder
from deixis.models.grounding_dino.bundle import GroundingDinoBundle
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.grounding_dino.weights.logit_scale import fold_scales
from deixis.models.grounding_dino.weights.transformers_layout import tensors_to_load, tensors_to_write, ties_of
from deixis.models.model_configs import read_transformers_config, require_same_scale, statistics
from deixis.models.model_record import read_record, write_record

CONFIGS = {"grounding-dino": GroundingDinoConfig, "mm-grounding-dino": MMGroundingDinoConfig}
ARCHITECTURES = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
MAX_IMAGE_PX = 20_000  # longest side; a 20,000 px square already has 1.2 GB
HUB_FILES = ("*.json", "*.safetensors", "vocab.txt", "README.md")  # the card has the licence
EXAMPLE = "IDEA-Research/grounding-dino-tiny"


@reads_model
def load_grounding_dino(source: str | Path) -> GroundingDinoBundle:
    """Load a detector, in evaluation mode, on the CPU.

    Args:
        source: a folder written by deixis or by transformers, or a hub id.

    Raises:
        ModelError: there is no model, it is of another kind, or a tensor is missing, unexpected or of a wrong shape.
    """
    folder = model_folder(source, HUB_FILES, EXAMPLE)
    config = read_transformers_config(folder / "config.json", CONFIGS)
    # before any memory is allocated for it
    require_same_scale(lambda: GroundingDino(config), folder)
    model = GroundingDino(config)
    tensors = tensors_to_load(read_weights(folder), model.state_dict(), ties_of(config), source=str(source))
    model.load_state_dict(tensors)
    size, mean, std = _read_preprocessing(folder)
    record = read_record(folder)
    bundle = GroundingDinoBundle(model.eval(), _read_tokenizer(folder), size, mean, std, str(source), record)
    _ = bundle.prompt_tokenizer  # raises here and not at the first prompt
    return bundle


def save_grounding_dino(bundle: GroundingDinoBundle, folder: str | Path) -> None:
    """Write a detector so that deixis and transformers can read it.

    Files are written completely, then renamed; other files in the folder stay.

    Raises:
        ModelError: the folder cannot be written, or the model has adapters that are not merged.
    """
    folder = Path(folder)
    adapted = [name for name, _ in bundle.model.named_parameters() if ".lora_" in name]
    if adapted:
        raise ModelError(f"{folder}: the model has adapters ({adapted[0]}, ...); merge them before saving it")
    with staged_folder(folder) as aside:
        _write(bundle, aside)


def _write(bundle: GroundingDinoBundle, folder: Path) -> None:
    config = copy.deepcopy(bundle.model.config)
    config.architectures = [ARCHITECTURES[config.model_type]]
    config.dtype = str(bundle.model.model.level_embed.dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    tensors = fold_scales(tensors_to_write(bundle.model.state_dict(), ties_of(config)), config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    bundle.tokenizer.save_pretrained(folder)
    short_px, long_px = bundle.image_size
    # for transformers' image processor; deixis reads only the sizes, mean and deviation
    preprocessing = {
        "image_processor_type": "GroundingDinoImageProcessor",
        "processor_class": "GroundingDinoProcessor",
        "format": "coco_detection",
        "do_resize": True,
        "size": {"shortest_edge": short_px, "longest_edge": long_px},
        "resample": 2,  # PIL's bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(bundle.mean),
        "image_std": list(bundle.std),
        "do_pad": True,
        "do_convert_annotations": True,
    }
    write_record(folder, replace(bundle.record, task="detector"))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", encoding="utf-8")


def _read_tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").exists() and not (folder / "vocab.txt").exists():
        raise ModelError(f"{folder}: has neither tokenizer.json nor vocab.txt; copy the model's tokenizer into it")
    return read_tokenizer(folder)


def _read_preprocessing(folder: Path) -> tuple[tuple[int, int], tuple[float, float, float], tuple[float, float, float]]:
    path = folder / "preprocessor_config.json"
    if path.exists():
        values = read_object(path)
    else:
        path = folder / "processor_config.json"
        values = read_object(path).get("image_processor", {})
    try:
        short_px, long_px = int(values["size"]["shortest_edge"]), int(values["size"]["longest_edge"])
        mean, std = statistics(values, path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path}: expected size with shortest_edge and longest_edge, image_mean and image_std"
        ) from error
    if not 0 < short_px <= long_px <= MAX_IMAGE_PX:
        raise ModelError(f"{path}: the image size is {short_px} to {long_px} px, expected 1 to {MAX_IMAGE_PX:,}")
    return (short_px, long_px), mean, std


def plain_detector(bundle: GroundingDinoBundle) -> Any:
    """transformers' model of a detector's weights, read from a folder that deixis writes, in evaluation mode.

    Raises:
        ModelError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the speed of its own network
        save_grounding_dino(bundle, f"{folder}/model")
        model = _read(f"{folder}/model")
    return model.eval()


def _read(folder: str) -> Any:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForZeroShotObjectDetection.from_pretrained(folder, local_files_only=True)
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def plain_outputs(
    model: Any, pixel_values: Float[Tensor, "batch 3 height width"], input_ids: Int[Tensor, "batch tokens"]
) -> tuple[Float[Tensor, "batch queries tokens"], Float[Tensor, "batch queries 4"]]:
    """Logits of the real tokens, and boxes, of images without padding."""
    pixel_mask = torch.ones_like(pixel_values[:, 0], dtype=torch.int64)
    with torch.no_grad():
        out = model(
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            input_ids=input_ids,
            token_type_ids=torch.zeros_like(input_ids),
            attention_mask=torch.ones_like(input_ids),
        )
    # transformers too pads logits to `max_text_len` with minus infinity
    return out.logits[..., : input_ids.shape[1]], out.pred_boxes
