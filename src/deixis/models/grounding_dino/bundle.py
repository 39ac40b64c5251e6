"""A detector with everything that turns a user's pixels and names into its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.model_record import ModelRecord
from deixis.models.text import FastPromptTokenizer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHED_ROWS = 64  # 1 MiB of floats at 1333 pixels a row


@dataclass(frozen=True)
class GroundingDinoBundle:
    """The network, its tokenizer, and how it wants its images.

    Attributes:
        tokenizer: transformers' own, with which the bundle is saved.
        image_size: (shortest side, longest side) in pixels to which images are resized.
        mean, std: of RGB values in [0, 1].
        source: the folder or hub id it was read from.
        record: what its folder says of it.
    """

    model: GroundingDino
    tokenizer: Any
    image_size: tuple[int, int] = (800, 1333)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    source: str = ""
    record: ModelRecord = field(default_factory=ModelRecord)

    def __post_init__(self) -> None:
        short_px, long_px = self.image_size
        if not 0 < short_px <= long_px:
            raise ModelError(f"{self.source}: image size (shortest, longest side) cannot be {self.image_size}")
        vocabulary = self.model.config.text_config.vocab_size
        if len(self.tokenizer) > vocabulary:
            raise ModelError(
                f"{self.source}: the tokenizer has {len(self.tokenizer)} tokens, the text encoder only {vocabulary}"
            )

    @cached_property
    def prompt_tokenizer(self) -> FastPromptTokenizer:
        """What `deixis.data.detect.prompts.build_prompt` wants."""
        return FastPromptTokenizer(self.tokenizer)

    def normalise(
        self, pixels_u8: UInt8[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixels as the model was trained on them: zero mean, unit deviation, zeros where padded."""
        mean = torch.tensor(self.mean, device=pixels_u8.device)[:, None, None]
        std = torch.tensor(self.std, device=pixels_u8.device)[:, None, None]
        scale, shift = 1 / (255 * std), mean / std
        if pixels_u8.device.type == "cpu":
            return _normalise_on_cpu(pixels_u8, pixel_mask, scale, shift)
        return pixels_u8.to(torch.float32).mul_(scale).sub_(shift).masked_fill_(~pixel_mask[:, None], 0)


def _normalise_on_cpu(
    pixels_u8: UInt8[Tensor, "batch 3 height width"],
    pixel_mask: Bool[Tensor, "batch height width"],
    scale: Float[Tensor, "3 1 1"],
    shift: Float[Tensor, "3 1 1"],
) -> Float[Tensor, "batch 3 height width"]:
    """`pixels * scale - shift` where there is an image, zeros elsewhere.

    A batch of floats outgrows every cache, and first touching fresh memory page by page costs several times the
    arithmetic. NumPy asks the kernel for huge pages; and rows are taken a few at a time, so that they stay in cache.
    """
    pixel_values = torch.from_numpy(np.zeros(tuple(pixels_u8.shape), np.float32))
    heights, widths = pixel_mask[:, :, 0].sum(1).tolist(), pixel_mask[:, 0].sum(1).tolist()
    for source, out, height, width in zip(pixels_u8, pixel_values, heights, widths, strict=True):
        for top in range(0, height, CACHED_ROWS):
            rows = slice(top, min(top + CACHED_ROWS, height))
            out[:, rows, :width].copy_(source[:, rows, :width]).mul_(scale).sub_(shift)
    return pixel_values


def init_bundle(
    config: Any,
    tokenizer: Any,
    image_size: tuple[int, int] = (800, 1333),
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> GroundingDinoBundle:
    """A detector with random weights, to be trained from scratch.

    Args:
        config: transformers' `GroundingDinoConfig` or `MMGroundingDinoConfig`.
        tokenizer: a fast transformers tokenizer with BERT's special-token ids.
        image_size: (shortest side, longest side) in pixels.

    Raises:
        ModelError: a configuration or a tokenizer that Grounding DINO cannot use.
    """
    bundle = GroundingDinoBundle(GroundingDino(config), tokenizer, image_size, mean, std, source="random weights")
    _ = bundle.prompt_tokenizer  # raises here rather than at the first prompt
    return bundle
