"""Any data set with masks as one of regions: every mask by itself, once."""

from __future__ import annotations

from dataclasses import dataclass

from deixis.data.scenes.refer_scenes import ReferScenes, SceneThings
from deixis.records import Rle
from deixis.refer_records import Expression, ReferDataset, ReferSample


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
