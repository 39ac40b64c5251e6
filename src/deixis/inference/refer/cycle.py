"""The loop: a mask is described, and what is said of it is looked for again.

The IoU of the mask that is found with the first one tells how well a caption says which region it is about, without
anyone's annotation: the metric of the loop, and the filter by which captions are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from deixis.data.refer.conversation import has_pixels
from deixis.errors import OptionError
from deixis.evaluation.refer_iou import overlap
from deixis.inference.eval_mode import evaluating
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.segmenter import Segmenter
from deixis.models.sa2va import Sa2vaBundle
from deixis.refer_records import Caption, Expression, ReferDataset, ReferList, ReferSample, Segmentation

DRAWN_TEMPERATURE, DRAWN_TOP_P = 0.7, 0.9


@dataclass(frozen=True)
class Cycled:
    """A region's caption and how well the region is found again.

    Attributes:
        iou: of the mask that the caption gives with the region.
        direct_iou: the same of the region's own first sentence; None where it has none, or was not asked.
        texts: the region's own sentences.
    """

    caption: Caption
    iou: float
    direct_iou: float | None = None
    texts: tuple[str, ...] = ()


class Cycle:
    """A model that describes, and the same model that finds again.

    Args:
        candidates: captions for a region, the likeliest one and others that are drawn; the one by which the region is
            found best is taken.
        seed: of what is drawn.
        direct: also look for the regions' own sentences.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        max_tiles: int = 12,
        max_new_tokens: int = 40,
        candidates: int = 1,
        seed: int = 0,
        direct: bool = False,
    ) -> None:
        if candidates < 1:
            raise OptionError(f"candidates must be at least 1, got {candidates}")
        self.captioners = [Captioner(bundle, device, max_tiles, max_new_tokens)]
        self.captioners += [
            Captioner(bundle, device, max_tiles, max_new_tokens, DRAWN_TEMPERATURE, DRAWN_TOP_P, seed + number)
            for number in range(candidates - 1)
        ]
        self.segmenter = Segmenter(bundle, device, max_tiles)
        self.direct = direct

    def run(
        self, dataset: ReferDataset, batch_size: int = 8, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[ReferSample, list[Cycled]]]:
        """Each image's annotations, and for each expression that has a pixel its caption and IoU, in order.

        Raises:
            DataError: an image cannot be read.
        """
        chosen = range(len(dataset)) if indices is None else indices
        with evaluating(self.segmenter.bundle.model):  # around all others, so that it is the last to be undone
            passes = [captioner.run(dataset, batch_size, chosen) for captioner in self.captioners]
            for index, described in zip(chosen, zip(*passes, strict=True), strict=True):
                candidates = [captions for _, captions in described]
                yield described[0][0], self._found_again(dataset, index, described[0][0], candidates, batch_size)

    def _found_again(
        self,
        dataset: ReferDataset,
        index: int,
        sample: ReferSample,
        candidates: Sequence[Sequence[Caption]],
        batch_size: int,
    ) -> list[Cycled]:
        regions = [expression for expression in sample.expressions if has_pixels(expression)]
        texts = [caption.text for captions in candidates for caption in captions]
        if self.direct:
            texts += [expression.texts[0] for expression in regions if expression.texts]
        asked = {text: Expression((text,), ()) for text in texts if text.strip()}  # each of them once
        found: dict[str, Segmentation] = {}
        if asked:
            again = ReferList((dataset[index].evolve(expressions=tuple(asked.values())),))
            ((_, segmentations),) = self.segmenter.run(again, batch_size)
            found = {segmentation.text: segmentation for segmentation in segmentations}
        cycled = []
        for number, expression in enumerate(regions):
            each = [captions[number] for captions in candidates]
            ious = [_iou(found.get(caption.text), expression) for caption in each]
            best = ious.index(max(ious))
            own = _iou(found.get(expression.texts[0]), expression) if self.direct and expression.texts else None
            cycled.append(Cycled(each[best], ious[best], own, expression.texts))
        return cycled


def _iou(found: Segmentation | None, expression: Expression) -> float:
    if found is None:
        return 0.0
    intersection, predicted, wanted = overlap(found.mask_rle, expression.masks_rle)
    return intersection / (predicted + wanted - intersection)
