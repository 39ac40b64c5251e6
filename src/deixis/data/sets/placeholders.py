"""One fixed phrase for every mask without words: data of masks alone, for runs that need teach no language."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset

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
