"""The segmenter's records: phrases and their masks, from disk to batch. Frozen, validated once.

Outside models and losses a mask is COCO RLE in the size of the image; inside them it is a bitmap on the losses' square
grid.
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
    """One or several sentences with the objects that they refer to in one image.

    Attributes:
        texts: sentences that all refer to the same objects. Training draws one of them in every epoch, evaluation uses
            each of them. Empty if only the mask is known and needs a caption.
        masks_rle: one RLE per object; their union is the target. Empty if the image has no such object.
        tags: groups for which metrics are also reported, such as `unseen pair` or `relation`.
        expression_id: the data set's own id.
        ignored_rle: regions where a prediction counts neither as right nor as wrong.

    Raises:
        DataError: a sentence is blank, or there is neither a sentence nor a mask.
    """

    texts: tuple[str, ...]
    masks_rle: tuple[Rle, ...]
    tags: tuple[str, ...] = ()
    expression_id: int = 0
    ignored_rle: tuple[Rle, ...] = ()

    def __post_init__(self) -> None:
        if any(not text.strip() for text in self.texts):
            raise DataError(f"expression {self.expression_id}: a sentence must not be blank, got {list(self.texts)}")
        if not self.texts and not self.masks_rle:
            raise DataError(f"expression {self.expression_id}: needs a sentence or a mask, has neither")


class Grounded(NamedTuple):
    """A phrase of an answer that has masks.

    Attributes:
        start, end: its characters, `answer[start:end]`; an empty phrase is a mask without words.
        expression: the position of the expression whose masks it has.
    """

    start: int
    end: int
    expression: int


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, as a data set gives them.

    Attributes:
        questions: sentences that ask the same. Training draws one of them in every epoch.
        answer: plain text.
        grounded: the phrases of the answer that have masks, in order.

    Raises:
        DataError: no question, a blank answer, or phrases that overlap or are not in the answer.
    """

    questions: tuple[str, ...]
    answer: str
    grounded: tuple[Grounded, ...] = ()

    def __post_init__(self) -> None:
        if not self.questions or not all(question.strip() for question in self.questions):
            raise DataError(f"a conversation needs a question before each answer, got {list(self.questions)}")
        if not self.answer.strip() and not self.grounded:
            raise DataError(f"the answer to {self.questions[0][:60]!r} must not be blank")
        after = 0
        for start, end, _ in self.grounded:
            if not after <= start <= end <= len(self.answer):
                raise DataError(
                    f"phrase {start} to {end} of an answer of {len(self.answer)} characters overlaps the one before "
                    f"it, which ends at {after}, or is not in the answer"
                )
            after = end


NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
"""The image of a conversation about none; its size is (0, 0)."""


@dataclass(frozen=True)
class ReferSample:
    """One image with any number of expressions, or a conversation.

    Attributes:
        image: a path, or pixels as uint8 RGB of shape (height, width, 3); `NO_IMAGE` for a conversation in text alone.
        size_hw: (height, width) of the image and of every mask, in pixels.
        image_id: the data set's own id.
        source: where it was read, for messages.
        chat: a conversation about the image, which training shows in place of questions about its expressions.
        regions: positions of the expressions whose masks the conversation calls `region1`, `region2` and so on.
        described: the texts are detailed descriptions of the masks, which training asks for and never asks by.

    Raises:
        DataError: the image is empty, its pixels or a mask have another size, or the conversation names an expression
            that does not exist.
    """

    image: Path | UInt8[np.ndarray, "h w 3"]
    size_hw: tuple[int, int]
    expressions: tuple[Expression, ...]
    image_id: int = 0
    source: str = ""
    chat: tuple[Exchange, ...] = ()
    regions: tuple[int, ...] = ()
    described: bool = False

    def __post_init__(self) -> None:
        if self.has_image or not self.chat or self.expressions:
            check_size(self.size_hw, self.source)
        named = {*self.regions, *(phrase.expression for exchange in self.chat for phrase in exchange.grounded)}
        if outside := sorted(i for i in named if not 0 <= i < len(self.expressions)):
            raise DataError(
                f"{self.source}: the conversation names expressions {outside}, there are {len(self.expressions)}"
            )
        if isinstance(self.image, np.ndarray) and self.image.shape[:2] != self.size_hw:
            raise DataError(f"{self.source}: pixels have size {self.image.shape[:2]}, size_hw is {self.size_hw}")
        for expression in self.expressions:
            for mask in (*expression.masks_rle, *expression.ignored_rle):
                if tuple(mask["size"]) != self.size_hw:
                    raise DataError(
                        f"{self.source}: a mask of {list(expression.texts)[:1]} is {tuple(mask['size'])}, "
                        f"the image {self.size_hw} (height, width); give masks in the image's own size"
                    )

    @property
    def has_image(self) -> bool:
        """Whether there is an image; a conversation may have none."""
        return self.size_hw != (0, 0)

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
    """Samples in memory (paths, not pixels). `name` is the data set's name in reports."""

    samples: tuple[ReferSample, ...]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> ReferSample:
        return self.samples[index]


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
    """The regions in the conversations of a batch; see `data.regions`.

    Attributes:
        focal_per_image: how many of each image's tiles (its last ones) are close-ups of regions: their tokens occur in
            the conversation only where `cells` lists them.
        cells: per image the indices of the tokens at its regions' placeholders, in order; first come the tokens of its
            tiles, then those of its outlines.
        outlines: one per image, of `data.regions.region_outline`; empty for models without spatial tokens.
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


@dataclass(frozen=True)
class Caption:
    """A caption of one region.

    Attributes:
        text: the model's description.
        score: mean log-probability of its tokens and of the end token, at most 0.
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
        mask_rle: in the size of the image; empty if the model predicts that there is no such object.
        score: predicted IoU of the mask, in [0, 1].
        present: probability that the image has what the phrase refers to, in [0, 1].
        answer: the model's text, including `[SEG]`.
    """

    text: str
    mask_rle: Rle
    score: float
    present: float = 1.0
    answer: str = ""
    image_id: int = 0
