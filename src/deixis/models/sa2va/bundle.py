"""A segmenter with everything that turns pixels and words into its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import Sam2Model, Sam2VideoModel

from deixis.data.pixels.cuts import Blocks, Cutter, Tiling
from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.model_record import ModelRecord
from deixis.models.sa2va.families.table import family_of
from deixis.models.sa2va.language.templates import NEW_TOKENS, TEMPLATES, Template
from deixis.models.sa2va.model import Sa2va

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PRESENCE, PRESENCE_THRESHOLD = "presence", 0.5
"""The record's name for the threshold of `Sa2vaBundle.presence_threshold`, and what it is where none was fitted."""
SAM_KINDS = {"sam2": Sam2Model, "sam2_video": Sam2VideoModel}
"""model_type to the class; the second also holds SAM 2's memory, which images do not need."""

Behaviour = Literal["sa2va", "deixis"]
"""sa2va: as released, the mask of the highest predicted IoU, whatever the object score. deixis: absent objects too."""


@dataclass(frozen=True)
class Sa2vaBundle:
    """The network, its tokenizer, and how it wants its images and conversations.

    Attributes:
        tokenizer: transformers' own, which knows `[SEG]`.
        template: how turns and images are written.
        behaviour: what is supervised and what is answered.
        tile_mean, tile_std: of the tiles' RGB values in [0, 1]; SAM 2's are ImageNet's.
        source: the folder or hub id it was read from.
        record: what its folder says of it.
        blocks: how images are cut, where they are shown whole; None where it is in tiles.
    """

    model: Sa2va
    tokenizer: Any
    template: Template
    behaviour: Behaviour = "deixis"
    tile_mean: tuple[float, float, float] = IMAGENET_MEAN
    tile_std: tuple[float, float, float] = IMAGENET_STD
    source: str = ""
    record: ModelRecord = field(default_factory=ModelRecord)
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        rows = self.model.vlm.get_input_embeddings().weight.shape[0]
        # More rows than tokens are usual: vocabularies are padded to a round number.
        if len(self.tokenizer) > rows:
            raise ModelError(f"{self.source}: the tokenizer has {len(self.tokenizer)} tokens, the model only {rows}")
        marks = (*NEW_TOKENS, self.template.end, self.template.image_token)
        if missing := [mark for mark in marks if mark not in self.tokenizer.get_vocab()]:
            raise ModelError(f"{self.source}: the tokenizer does not know {missing}; expected each as one token")
        # A folder whose tokenizer was exchanged would put pictures, or read masks, at another word, without any error.
        for mark, wanted in ((SEG, self.model.seg_token_id), (self.template.image_token, self.model.image_token_id)):
            if (token_id := self.tokenizer.convert_tokens_to_ids(mark)) != wanted:
                raise ModelError(f"{self.source}: {mark} is token {token_id}, the model takes {wanted} for it")

    @property
    def presence_threshold(self) -> float:
        """Minimum probability of presence for a mask to be shown: fitted on validation data and kept in the record, or
        `PRESENCE_THRESHOLD`."""
        return self.record.thresholds.get(PRESENCE, PRESENCE_THRESHOLD)

    def with_presence_threshold(self, threshold: float) -> Sa2vaBundle:
        """The same model with this threshold in its record; itself where it has it already."""
        if threshold == self.presence_threshold:
            return self
        thresholds = {**self.record.thresholds, PRESENCE: threshold}
        return replace(self, record=replace(self.record, thresholds=thresholds))

    @property
    def seg_token_id(self) -> int:
        """Of `[SEG]`."""
        return self.model.seg_token_id

    @property
    def end_token_id(self) -> int:
        """Of the token that ends an answer."""
        return int(self.tokenizer.convert_tokens_to_ids(self.template.end))

    @property
    def tile_px(self) -> int:
        """Side of a tile, or of a block, in pixels."""
        return self.cutter.square_px

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens that a tile, or a block, takes in a conversation."""
        return 1 if self.blocks is not None else self.model.family.tiling(self.model.vlm.config).side ** 2

    @property
    def cutter(self) -> Cutter:
        """Cuts pictures for the vision-language model."""
        tiling: Tiling = self.model.family.tiling(self.model.vlm.config)
        return tiling if self.blocks is None else self.blocks

    def require_regions(self) -> None:
        """See that masks can be described, or asked about.

        Raises:
            ModelError: images are shown whole, in which no released model has learnt regions.
        """
        if self.blocks is not None:
            raise ModelError(
                f"{self.source}: {self.model.family.name} segmenters take no regions, as in Sa2VA's own code; use one "
                "built on InternVL to describe masks"
            )

    @property
    def sam_px(self) -> int:
        """Side of the square that SAM 2 sees, in pixels."""
        return int(self.model.sam.config.prompt_encoder_config.image_size)

    @property
    def mask_px(self) -> int:
        """Side of the mask logits: a quarter of `sam_px`."""
        return self.sam_px // 4

    def normalise_tiles(self, tiles_u8: UInt8[Tensor, "tiles 3 tile tile"]) -> Float[Tensor, "tiles 3 tile tile"]:
        """Tiles as the vision-language model was trained on them."""
        return _normalise(tiles_u8, self.tile_mean, self.tile_std)

    def normalise_sam(self, pixels_u8: UInt8[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
        """Pixels as SAM 2 was trained on them."""
        return _normalise(pixels_u8, IMAGENET_MEAN, IMAGENET_STD)


def _normalise(pixels_u8: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    means = torch.tensor(mean, device=pixels_u8.device)[:, None, None]
    deviations = torch.tensor(std, device=pixels_u8.device)[:, None, None]
    # (pixels / 255 - mean) / deviation in two passes, in place: one batch of floats is all that is allocated.
    return pixels_u8.to(torch.float32).mul_(1 / (255 * deviations)).sub_(means / deviations)


def init_sa2va(
    vlm_config: Any,
    sam_config: Any,
    tokenizer: Any,
    template: Template = TEMPLATES["chatml"],
    behaviour: Behaviour = "deixis",
) -> Sa2vaBundle:
    """A segmenter with random weights, to be trained from scratch.

    Args:
        vlm_config: transformers' configuration of a family of `families.table`.
        sam_config: transformers' `Sam2Config` or `Sam2VideoConfig`.
        tokenizer: a transformers tokenizer that knows `NEW_TOKENS` and the template's marks.

    Raises:
        ModelError: a configuration or a tokenizer that cannot be used.
    """
    family = family_of(vlm_config)
    vlm = family.architecture(vlm_config)
    sam = sam_class(sam_config)(sam_config)
    # Points and pixels are placed by the same random waves.
    sam.prompt_encoder.shared_embedding.positional_embedding.copy_(sam.shared_image_embedding.positional_embedding)
    model = Sa2va(vlm, sam, tokenizer.convert_tokens_to_ids(SEG))
    blocks = family.blocks(vlm_config)
    return Sa2vaBundle(model, tokenizer, template, behaviour, source="random weights", blocks=blocks)


def sam_class(config: Any) -> Any:
    """The class of a SAM 2 configuration.

    Raises:
        ModelError: another model's.
    """
    kind = getattr(config, "model_type", None)
    if kind not in SAM_KINDS:
        raise ModelError(f"model_type {kind!r} is no SAM 2; expected one of {sorted(SAM_KINDS)}")
    return SAM_KINDS[kind]
