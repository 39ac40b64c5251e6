"""Records of clips: frames, and masks that follow objects through them. Frozen, validated once.

A mask is COCO RLE in the size of its frame. Frames are counted from 0. Only some frames may be labelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from deixis.errors import DataError
from deixis.records import Rle
from deixis.refer_records import Exchange, Expression, ReferSample


@runtime_checkable
class Frames(Protocol):
    """The frames of a clip, all of one size, decoded on access and not kept.

    A `DataError` from any of these methods names the file, and the frame if it is a single one.
    """

    @property
    def size_hw(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "h w 3"]: ...

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]: ...

    def read(self, indices: Iterable[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """The given frames as uint8 RGB, in the given order; ascending order is fastest."""
        ...


@dataclass(frozen=True)
class Masklet:
    """One object through a clip.

    Attributes:
        masks_rle: one per labelled frame; None where the object is not visible.
        masklet_id: the data set's own id of the object.
    """

    masks_rle: tuple[Rle | None, ...]
    masklet_id: int = 0


@dataclass(frozen=True)
class ClipExpression:
    """One or several sentences with the objects that they refer to in a clip.

    Attributes:
        texts: sentences that refer to the same objects; empty if only the masks are known.
        masklets: indices of the objects in `Clip.masklets`; their union is the target. Empty if the clip has no such
            object.
        tags: groups for which metrics are also reported, such as `late`, `vanishes`, `returns` or `motion`.
        expression_id: the data set's own id.

    Raises:
        DataError: a sentence is blank, there is neither a sentence nor a masklet, or a masklet is listed twice.
    """

    texts: tuple[str, ...]
    masklets: tuple[int, ...]
    tags: tuple[str, ...] = ()
    expression_id: int = 0

    def __post_init__(self) -> None:
        if any(not text.strip() for text in self.texts):
            raise DataError(f"expression {self.expression_id}: a sentence must not be blank, got {list(self.texts)}")
        if not self.texts and not self.masklets:
            raise DataError(f"expression {self.expression_id}: needs a sentence or a masklet, has neither")
        if len(set(self.masklets)) != len(self.masklets):
            raise DataError(f"expression {self.expression_id}: refers to a masklet twice, got {list(self.masklets)}")


@dataclass(frozen=True)
class Clip:
    """A video, or a part of one, with its objects and expressions.

    Attributes:
        frames: the frames, decoded on access.
        labelled: the annotated frames, ascending; every masklet has an entry for each of them. Nothing is known about
            other frames. Empty if there are no annotations.
        masklets: the annotated objects.
        expressions: sentences about them.
        video_id: the data set's own name of the video.
        source: where it was read, for messages.
        chat: a conversation about the clip, which training shows in place of questions about its expressions.

    Raises:
        DataError: labels are outside the clip or out of order, a masklet has another length, a mask another size, or an
            expression refers to a masklet that does not exist.
    """

    frames: Frames
    labelled: tuple[int, ...] = ()
    masklets: tuple[Masklet, ...] = ()
    expressions: tuple[ClipExpression, ...] = ()
    video_id: str = ""
    source: str = ""
    chat: tuple[Exchange, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.frames)
        if any(later <= earlier for earlier, later in zip(self.labelled, self.labelled[1:], strict=False)):
            raise DataError(f"{self.source}: labelled frames must ascend, got {self.labelled[:20]}")
        if self.labelled and not 0 <= self.labelled[0] <= self.labelled[-1] < count:
            raise DataError(
                f"{self.source}: labels are given for frames {self.labelled[0]} to {self.labelled[-1]}, "
                f"the video has {count}; get the video or its annotation again"
            )
        for masklet in self.masklets:
            self._check_masklet(masklet)
        for expression in self.expressions:
            outside = [i for i in expression.masklets if not 0 <= i < len(self.masklets)]
            if outside:
                raise DataError(
                    f"{self.source}: {list(expression.texts)[:1]} refers to masklets {outside}, "
                    f"there are {len(self.masklets)}"
                )

    def _check_masklet(self, masklet: Masklet) -> None:
        where = f"{self.source}: masklet {masklet.masklet_id}"
        if len(masklet.masks_rle) != len(self.labelled):
            raise DataError(f"{where} has {len(masklet.masks_rle)} entries for {len(self.labelled)} labelled frames")
        for frame, mask in zip(self.labelled, masklet.masks_rle, strict=True):
            if mask is not None and tuple(mask["size"]) != self.size_hw:
                raise DataError(
                    f"{where}: its mask of frame {frame} is {tuple(mask['size'])}, the frames are {self.size_hw} "
                    "(height, width); give masks in the video's own size"
                )

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the frames and of every mask, in pixels."""
        return self.frames.size_hw

    def masks_at(self, expression: ClipExpression, label: int) -> tuple[Rle, ...]:
        """The masks of an expression's objects in labelled frame number `label`; empty where none is visible."""
        masks = (self.masklets[i].masks_rle[label] for i in expression.masklets)
        return tuple(mask for mask in masks if mask is not None)

    def sample_at(self, label: int) -> ReferSample:
        """Labelled frame number `label` as a single image, decoded; expressions keep their order.

        A sentence without a visible object gets no masks; expressions with neither sentence nor mask are left out.

        Raises:
            DataError: the frame cannot be decoded.
        """
        frame = self.labelled[label]
        asked = [(expression, self.masks_at(expression, label)) for expression in self.expressions]
        expressions = tuple(
            Expression(expression.texts, masks, expression.tags, expression.expression_id)
            for expression, masks in asked
            if expression.texts or masks
        )
        return ReferSample(self.frames[frame], self.size_hw, expressions, frame, f"{self.source} frame {frame}")

    def evolve(self, **changes: Any) -> Clip:
        """A copy with some fields replaced, validated again."""
        return replace(self, **changes)


@runtime_checkable
class ClipDataset(Protocol):
    """What every reader of clips returns. A clip is opened on access."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Clip: ...
