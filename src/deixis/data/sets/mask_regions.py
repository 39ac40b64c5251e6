"""Masks without words: every mask of a data set by itself, and one fixed phrase for each that has none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from deixis.data.scenes.refer_scenes import ReferScenes, SceneThings
from deixis.records import Rle
from deixis.refer_records import Expression, ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


@dataclass(frozen=True)
class EachMask:
    """Images whose expressions are their different masks, in the order in which they come, numbered from 1.

    A mask keeps the sentences of the expressions that mean it alone.
    """

    dataset: ReferDataset

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.dataset.name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> ReferSample:
        sample = self.dataset[index]
        masks: dict[bytes, Rle] = {}
        texts: dict[bytes, dict[str, None]] = {}
        for expression in sample.expressions:
            for mask in expression.masks_rle:
                masks.setdefault(mask_key(mask), mask)
                alone = expression.texts if len(expression.masks_rle) == 1 else ()
                texts.setdefault(mask_key(mask), {}).update(dict.fromkeys(alone))
        return sample.evolve(
            expressions=tuple(
                Expression(tuple(texts[key]), (mask,), expression_id=number)
                for number, (key, mask) in enumerate(masks.items(), start=1)
            )
        )


def each_mask(dataset: ReferDataset) -> ReferDataset:
    """The data set with every mask by itself; of generated scenes, every thing."""
    return SceneThings(dataset) if isinstance(dataset, ReferScenes) else EachMask(dataset)


def mask_key(mask: Rle) -> bytes:
    """Equal for equal masks of one image."""
    counts = mask["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else bytes(counts)


PHRASE = "the object"
TAG = "placeholder"
"""Of expressions that have the phrase from here: metrics are reported for them apart; they are not ambiguous."""


@dataclass(frozen=True)
class Placeholders:
    """A data set of images or clips in which every mask, or masklet, without a phrase has `PHRASE`; others stay."""

    dataset: ReferDataset | ClipDataset

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.dataset.name}, placeholders for missing phrases"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Any:
        sample: ReferSample | Clip = self.dataset[index]
        return sample.evolve(expressions=tuple(_named(expression) for expression in sample.expressions))


def with_placeholders(dataset: ReferDataset | ClipDataset) -> Any:
    """The data set of `Placeholders`, as what it was: images or clips."""
    return cast(Any, Placeholders(dataset))


def _named(expression: Any) -> Any:
    return expression if expression.texts else replace(expression, texts=(PHRASE,), tags=(*expression.tags, TAG))
