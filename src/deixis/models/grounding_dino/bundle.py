"""A detector with everything that turns a user's pixels and names into its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.text import FastPromptTokenizer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class GroundingDinoBundle:
    """The network, its tokenizer, and how it wants its images.

    Attributes:
        tokenizer: transformers' own, with which the bundle is saved.
        image_size: (shortest side, longest side) in pixels to which images are resized.
        mean, std: of RGB values in [0, 1].
        source: the folder or hub id it was read from.
    """

    model: GroundingDino
    tokenizer: Any
    image_size: tuple[int, int] = (800, 1333)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    source: str = ""

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
        """What `deixis.data.prompts.build_prompt` wants."""
        return FastPromptTokenizer(self.tokenizer)

    def normalise(
        self, pixels_u8: UInt8[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixels as the model was trained on them: zero mean, unit deviation, zeros where padded."""
        mean = torch.tensor(self.mean, device=pixels_u8.device)[:, None, None]
        std = torch.tensor(self.std, device=pixels_u8.device)[:, None, None]
        # One allocation, then in place: on a CPU this is bound by memory.
        pixel_values = pixels_u8.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)
        return pixel_values.masked_fill_(~pixel_mask[:, None], 0)


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
