"""The records of a training step: images and prompts, or conversations, as tensors padded to common sizes.

Boxes are cxcywh divided by the size of the unpadded image, masks bitmaps on the losses' square grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """Class names as one tokenised caption.

    Attributes:
        caption: the text, which always ends in `.`.
        names: the class names as given by the user, in prompt order.
        char_spans: `[start, end)` in `caption`, one per name; for a name in several parts, the first part.
        input_ids: token ids, including special tokens.
        positive_map: row c marks the tokens of name c. Each row sums to 1 and has at least one token.
    """

    caption: str
    names: tuple[str, ...]
    char_spans: tuple[tuple[int, int], ...]
    input_ids: tuple[int, ...]
    positive_map: Float[np.ndarray, "classes tokens"]


@dataclass(frozen=True)
class Target:
    """The targets of one image in a batch: any number of objects, including none; crowd boxes are left out.

    Attributes:
        boxes_cxcywh_norm: boxes divided by the size of the *unpadded* image.
        class_ids: rows of `positive_map`.
        positive_map: the weight of each token in each class; rows sum to 1; as wide as the batch's `input_ids`.
        size_hw: the unpadded size after transforms, in pixels.
        unjudged_class_ids: rows of `positive_map` whose classes may have objects that are not annotated; queries
            without an object get no loss for them.
        seed: for the random numbers that a step draws for this image, in whichever process; None uses torch's global
            generator.
    """

    boxes_cxcywh_norm: Float[Tensor, "n 4"]
    class_ids: Int[Tensor, " n"]
    positive_map: Float[Tensor, "classes tokens"]
    size_hw: tuple[int, int]
    original_size_hw: tuple[int, int]
    image_id: int
    source: str = ""
    unjudged_class_ids: tuple[int, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Batch:
    """Images and prompts, padded to common sizes.

    Attributes:
        pixels_u8: RGB, zeros where padded. Normalised on the device, with the model's mean and std.
        pixel_mask: true on real pixels.
        input_ids, attention_mask: one prompt per image; the mask is true on real tokens.
        targets: one per image.
    """

    pixels_u8: UInt8[Tensor, "batch 3 h w"]
    pixel_mask: Bool[Tensor, "batch h w"]
    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Bool[Tensor, "batch tokens"]
    targets: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: Any) -> Batch:
        """The same batch on a device; copies from pinned memory do not block."""

        def move(tensor: Any) -> Any:
            return tensor.to(device, non_blocking=True)

        targets = tuple(
            replace(
                target,
                boxes_cxcywh_norm=move(target.boxes_cxcywh_norm),
                class_ids=move(target.class_ids),
                positive_map=move(target.positive_map),
            )
            for target in self.targets
        )
        return Batch(
            move(self.pixels_u8), move(self.pixel_mask), move(self.input_ids), move(self.attention_mask), targets
        )

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader."""
        return replace(
            self,
            pixels_u8=self.pixels_u8.pin_memory(),
            pixel_mask=self.pixel_mask.pin_memory(),
            input_ids=self.input_ids.pin_memory(),
            attention_mask=self.attention_mask.pin_memory(),
        )


@dataclass(frozen=True)
class ReferTarget:
    """The targets of one image in a batch: one mask per `[SEG]`, in the order of the tokens.

    Attributes:
        masks: on the losses' square grid, to which image and masks are resized without keeping their aspect ratio; all
            false where the image has no such object. In a clip each phrase has one per frame, in order.
        texts: the phrases, one per mask.
        size_hw: of the image, in pixels.
        seed: for the random numbers that a step draws for this image, in whichever process; None uses torch's global
            generator.
    """

    masks: Bool[Tensor, "objects h w"]
    texts: tuple[str, ...]
    size_hw: tuple[int, int]
    image_id: int = 0
    source: str = ""
    seed: int | None = None


class Regions(NamedTuple):
    """The regions in the conversations of a batch; see `data.pixels.regions`.

    Attributes:
        focal_per_image: how many of each image's tiles (its last ones) are close-ups of regions: their tokens occur in
            the conversation only where `cells` lists them.
        cells: per image the indices of the tokens at its regions' placeholders, in order; first come the tokens of its
            tiles, then those of its outlines.
        outlines: one per image, of `data.pixels.regions.region_outline`; empty for models without spatial tokens.
    """

    focal_per_image: tuple[int, ...]
    cells: tuple[tuple[int, ...], ...]
    outlines: tuple[Float[Tensor, "_ values"], ...] = ()


Grid = tuple[int, int]
"""Rows and columns of the tokens of a picture."""
Grids = tuple[tuple[Grid, ...], ...]
"""For each conversation the grids of its pictures, in order; empty where every tile is a picture by itself."""


@dataclass(frozen=True)
class ReferBatch:
    """Images and conversations, padded to common lengths.

    Attributes:
        tiles_u8: the vision-language model's input, RGB, the tiles of all images one after another.
        tiles_per_image: number of tiles per image.
        sam_pixels_u8: SAM 2's input, RGB, resized to its square; for clips all frames, one after another; nothing for
            rows that ask for no mask.
        input_ids: conversations, including image placeholders; the number of `[SEG]` tokens in row i, times the frames
            of a clip, is the number of masks of target i.
        attention_mask: true on real tokens.
        labels: the target token at each position, -100 where there is no loss. Not shifted.
        targets: one per image.
        regions: the regions in the conversations; None if there are none.
        keys: one per image, equal for equal tiles and pixels, without the close-ups of regions.
        frames_per_image: number of frames per row in `sam_pixels_u8` if rows are clips; empty for one each.
        grids: of the pictures that the tiles form together.
    """

    tiles_u8: UInt8[Tensor, "tiles 3 tile tile"]
    tiles_per_image: tuple[int, ...]
    sam_pixels_u8: UInt8[Tensor, "frames 3 side side"]
    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Bool[Tensor, "batch tokens"]
    labels: Int[Tensor, "batch tokens"]
    targets: tuple[ReferTarget, ...]
    regions: Regions | None = None
    keys: tuple[str, ...] = ()
    frames_per_image: tuple[int, ...] = ()
    grids: Grids = ()

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: Any) -> ReferBatch:
        """The same batch on a device; copies from pinned memory do not block."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ReferBatch:
        """Called by torch's DataLoader."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> ReferBatch:
        regions = self.regions
        return ReferBatch(
            change(self.tiles_u8),
            self.tiles_per_image,
            change(self.sam_pixels_u8),
            change(self.input_ids),
            change(self.attention_mask),
            change(self.labels),
            tuple(replace(target, masks=change(target.masks)) for target in self.targets),
            regions and regions._replace(outlines=tuple(change(outline) for outline in regions.outlines)),
            self.keys,
            self.frames_per_image,
            self.grids,
        )
