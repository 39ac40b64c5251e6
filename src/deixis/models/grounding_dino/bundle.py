"""A detector with what turns a user's pixels and names into its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deixis.batch_records import Prompt
from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.grounding import sentence_prompt
from deixis.errors import ModelError
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.model_record import ModelRecord
from deixis.models.text import FastPromptTokenizer
from deixis.records import Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHED_ROWS = 64  # 1 MiB of floats (3 channels) at 1333 pixels per row


@dataclass(frozen=True)
class GroundingDinoBundle:
    """The network, its tokenizer, and its image preprocessing.

    Attributes:
        tokenizer: transformers' tokenizer, saved with the bundle.
        image_size: (shortest side, longest side) in pixels to which images are resized.
        mean, std: of RGB values in [0, 1].
        source: the folder or hub id it was loaded from.
        record: the content of the folder's `deixis.json`.
        sinks: text tokens behind every prompt of predictions; see `sinks`.
    """

    model: GroundingDino
    tokenizer: Any
    image_size: tuple[int, int] = (800, 1333)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    source: str = ""
    record: ModelRecord = field(default_factory=ModelRecord)
    sinks: Tensor | None = None

    def __post_init__(self) -> None:
        short_px, long_px = self.image_size
        if not 0 < short_px <= long_px:
            raise ModelError(f"{self.source}: image size (shortest, longest side) cannot be {self.image_size}")
        # more rows of embeddings than tokens are harmless; a token without a row would fail at its first use
        vocabulary = self.model.config.text_config.vocab_size
        if len(self.tokenizer) > vocabulary:
            raise ModelError(
                f"{self.source}: the tokenizer has {len(self.tokenizer)} tokens, the text encoder only {vocabulary}"
            )

    @cached_property
    def prompt_tokenizer(self) -> FastPromptTokenizer:
        """The tokenizer for `deixis.data.detect.prompts.build_prompt`."""
        return FastPromptTokenizer(self.tokenizer)

    def normalise(
        self, pixels_u8: UInt8[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixels as in the model's training: zero mean, unit standard deviation, zeros where padded."""
        return normalise(pixels_u8, pixel_mask, self.mean, std=self.std)

    def prompts(
        self, names: Sequence[str], max_names: int | None = None, max_tokens: int | None = None
    ) -> tuple[Prompt, ...]:
        """The prompts that together ask for all names, each of at most `max_names` names and `max_tokens` tokens.

        Raises:
            PromptError: names cannot be made into prompts.
        """
        return chunk_prompts(names, self.prompt_tokenizer, max_tokens or self.model.max_text_len, max_names)

    def sentence(self, sample: Sample, max_tokens: int | None = None) -> Prompt | None:
        """The prompt of a sample whose phrases have known places in its caption; None for all others."""
        return sentence_prompt(sample, self.prompt_tokenizer, max_tokens or self.model.max_text_len)


def normalise(
    pixels_u8: UInt8[Tensor, "batch 3 height width"],
    pixel_mask: Bool[Tensor, "batch height width"],
    mean: tuple[float, float, float],
    *,
    std: tuple[float, float, float],
) -> Float[Tensor, "batch 3 height width"]:
    """Pixels with the mean of RGB values in [0, 1] removed, divided by their deviation; zeros where padded."""
    centre, spread = (torch.tensor(each, device=pixels_u8.device)[:, None, None] for each in (mean, std))  # [3, 1, 1]
    scale, shift = 1 / (255 * spread), centre / spread  # (pixels / 255 - mean) / std in one pass
    if pixels_u8.device.type == "cpu":
        return _normalise_on_cpu(pixels_u8, pixel_mask, scale, shift=shift)
    # in place after the cast, so that only one batch of floats is allocated
    return pixels_u8.to(torch.float32).mul_(scale).sub_(shift).masked_fill_(~pixel_mask[:, None], 0)


def _normalise_on_cpu(
    pixels_u8: UInt8[Tensor, "batch 3 height width"],
    pixel_mask: Bool[Tensor, "batch height width"],
    scale: Float[Tensor, "3 1 1"],
    *,
    shift: Float[Tensor, "3 1 1"],
) -> Float[Tensor, "batch 3 height width"]:
    """`pixels * scale - shift` inside each image, zeros in the padding.

    A batch of floats exceeds every cache, and touching new memory page by page takes several times as long as the
    arithmetic. NumPy requests huge pages from the kernel, and rows are processed a few at a time to stay in cache.
    """
    # [B, 3, H, W]; the padding keeps these zeros
    pixel_values = torch.from_numpy(np.zeros(tuple(pixels_u8.shape), np.float32))
    # each image fills its top left corner, so the first column and row of the mask give its size
    heights, widths = pixel_mask[:, :, 0].sum(1).tolist(), pixel_mask[:, 0].sum(1).tolist()
    for source, out, height, width in zip(pixels_u8, pixel_values, heights, widths, strict=True):
        for top in range(0, height, CACHED_ROWS):
            # [3, rows, width], without the padding at the right
            rows = slice(top, min(top + CACHED_ROWS, height))
            out[:, rows, :width].copy_(source[:, rows, :width]).mul_(scale).sub_(shift)
    return pixel_values


def init_bundle(
    config: Any,
    tokenizer: Any,
    image_size: tuple[int, int] = (800, 1333),
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> GroundingDinoBundle:
    """A detector with random weights, for training from scratch.

    Args:
        config: transformers' `GroundingDinoConfig` or `MMGroundingDinoConfig`.
        tokenizer: a fast transformers tokenizer with BERT's special-token ids.
        image_size: (shortest side, longest side) in pixels.

    Raises:
        ModelError: a configuration or a tokenizer that Grounding DINO cannot use.
    """
    bundle = GroundingDinoBundle(GroundingDino(config), tokenizer, image_size, mean, std, source="random weights")
    _ = bundle.prompt_tokenizer  # raises here and not at the first prompt
    return bundle
