"""The segmenter's records: phrases and their masks, from disk to batch. Frozen, validated once.

Outside models and losses a mask is COCO RLE in the size of the image; inside them it is a bitmap on the losses' square
grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from deixis.errors import DataError
from deixis.records import Rle, check_size


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
