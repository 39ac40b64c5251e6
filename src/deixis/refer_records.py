"""The segmenter's records: phrases and the masks they mean, from disk to batch. Frozen, validated once.

Outside models and losses a mask is COCO RLE of the image as it stands; inside them it is a bitmap on the square grid
of the losses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from deixis.errors import DataError
from deixis.records import Rle, check_size

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Expression:
    """What one or several sentences mean in one image.

    Attributes:
        texts: sentences that all mean the same objects. Training draws one of them anew in every epoch, evaluation
            takes each by itself. Empty where only the mask is known: it awaits a caption.
        masks_rle: the objects meant, one RLE each; their union is the target. None at all: nothing of the kind is in
            the image.
        tags: groups that metrics are also reported by, such as `unseen pair` or `relation`.
        expression_id: the data set's own id.

    Raises:
        DataError: a blank sentence, or neither a sentence nor a mask.
    """

    texts: tuple[str, ...]
    masks_rle: tuple[Rle, ...]
    tags: tuple[str, ...] = ()
    expression_id: int = 0

    def __post_init__(self) -> None:
        if any(not text.strip() for text in self.texts):
            raise DataError(f"expression {self.expression_id}: a sentence must not be blank, got {list(self.texts)}")
        if not self.texts and not self.masks_rle:
            raise DataError(f"expression {self.expression_id}: needs a sentence or a mask, has neither")


@dataclass(frozen=True)
class ReferSample:
    """One image with its expressions; any number.

    Attributes:
        image: a path, or pixels as uint8 RGB of shape (height, width, 3).
        size_hw: (height, width) of the image and of every mask, in pixels.
        image_id: the data set's own id.
        source: where it was read, for messages.

    Raises:
        DataError: an empty image, pixels or a mask of another size.
    """

    image: Path | UInt8[np.ndarray, "h w 3"]
    size_hw: tuple[int, int]
    expressions: tuple[Expression, ...]
    image_id: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        check_size(self.size_hw, self.source)
        if isinstance(self.image, np.ndarray) and self.image.shape[:2] != self.size_hw:
            raise DataError(f"{self.source}: pixels are {self.image.shape[:2]}, size_hw says {self.size_hw}")
        for expression in self.expressions:
            for mask in expression.masks_rle:
                if tuple(mask["size"]) != self.size_hw:
                    raise DataError(
                        f"{self.source}: a mask of {list(expression.texts)[:1]} is {tuple(mask['size'])}, "
                        f"the image {self.size_hw} (height, width); give masks in the image's own size"
                    )

    def evolve(self, **changes: Any) -> ReferSample:
        """A copy with some fields replaced, validated again."""
        return replace(self, **changes)


@runtime_checkable
class ReferDataset(Protocol):
    """What every reader of expressions returns."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ReferSample: ...


@dataclass(frozen=True)
class ReferList:
    """Samples held in memory (paths, not pixels). `name` is what reports call it."""

    samples: tuple[ReferSample, ...]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> ReferSample:
        return self.samples[index]


@dataclass(frozen=True)
class ReferTarget:
    """What one image of a batch should yield: one mask a `[SEG]`, in the order of the tokens.

    Attributes:
        masks: on the square grid of the losses, to which image and masks are squashed alike; all false where the
            phrase means nothing in the image. Of a clip each phrase has one for every frame, one after another.
        texts: the phrases, one a mask.
        size_hw: of the image, in pixels.
        seed: of what a step draws for this image, whichever process it is in; None draws from torch's global generator.
    """

    masks: Bool[Tensor, "objects h w"]
    texts: tuple[str, ...]
    size_hw: tuple[int, int]
    image_id: int = 0
    source: str = ""
    seed: int | None = None


class Regions(NamedTuple):
    """Regions that the conversations of a batch are about; see `data.regions`.

    Attributes:
        focal_per_image: how many of each image's tiles, the last ones, are views of regions alone: their tokens stand
            in the conversation only where `cells` names them.
        cells: for each image the tokens that stand at the placeholders of its regions, in order: of its tiles, and
            after those, numbered on, of its outlines.
        outlines: one an image, of `data.regions.region_outline`; empty for models without spatial tokens.
    """

    focal_per_image: tuple[int, ...]
    cells: tuple[tuple[int, ...], ...]
    outlines: tuple[Float[Tensor, "_ values"], ...] = ()


@dataclass(frozen=True)
class ReferBatch:
    """Images and conversations, padded to common lengths.

    Attributes:
        tiles_u8: what the vision-language model sees, RGB, the tiles of all images one after another.
        tiles_per_image: how many of them are each image's.
        sam_pixels_u8: what SAM 2 sees: RGB, squashed to its square; of clips all frames, one after another; nothing of
            rows that ask for no mask.
        input_ids: conversations, image placeholders included; the number of `[SEG]` tokens in row i, times the frames
            of a clip, is the number of masks of target i.
        attention_mask: true on real tokens.
        labels: the token that each position should be, -100 where no loss is wanted. Not shifted.
        targets: one an image.
        regions: what is asked about masks; None where nothing is.
        keys: one an image, the same for the same tiles and pixels, close views of regions apart.
        frames_per_image: how many of `sam_pixels_u8` are each row's, where rows are clips; empty for one each.
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
        )


@dataclass(frozen=True)
class Caption:
    """Words for one region.

    Attributes:
        text: what the model says of it.
        score: mean log-probability of the words and of their end, at most 0.
        mask_rle: the region, in the size of the image.
    """

    text: str
    score: float
    mask_rle: Rle
    image_id: int = 0


@dataclass(frozen=True)
class Segmentation:
    """The answer to one phrase in one image.

    Attributes:
        mask_rle: in the size of the image; empty where the model says that nothing is meant.
        score: predicted IoU of the mask, in [0, 1].
        present: probability that the phrase means something in the image, in [0, 1].
        answer: what the model said, `[SEG]` included.
    """

    text: str
    mask_rle: Rle
    score: float
    present: float = 1.0
    answer: str = ""
    image_id: int = 0
