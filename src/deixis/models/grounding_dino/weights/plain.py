"""A detector as transformers itself runs it, to compare with."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection
from transformers.utils import logging as transformers_logging

from deixis.models.grounding_dino.bundle import GroundingDinoBundle
from deixis.models.grounding_dino.weights.pretrained import save_grounding_dino


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
    return out.logits[..., : input_ids.shape[1]], out.pred_boxes
