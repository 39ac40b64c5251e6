"""Cycle consistency: a mask is captioned, and the caption is segmented again.

The IoU of the two masks measures how well the caption identifies its region, without any annotation. It is a metric,
and it decides which captions are kept.
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
    """A region's caption and how well the caption finds the region.

    Attributes:
        iou: of the region with the mask that its caption gives.
        direct_iou: of the region with the mask that its first annotated sentence gives; None without one, or where it
            was not requested.
        texts: the region's annotated sentences.
    """

    caption: Caption
    iou: float
    direct_iou: float | None = None
    texts: tuple[str, ...] = ()


class Cycle:
    """A captioner and a segmenter of the same model.

    Args:
        candidates: captions per region: the most probable one, and sampled ones; the one of highest IoU is kept.
        seed: of sampling.
        direct: also segment the regions' annotated sentences.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        max_tiles: int = 12,
        *,
        max_new_tokens: int = 40,
        candidates: int = 1,
        seed: int = 0,
        direct: bool = False,
    ) -> None:
        if candidates < 1:
            raise OptionError(f"candidates must be at least 1, got {candidates}")
        self.captioners = [Captioner(bundle, device, max_tiles, max_new_tokens=max_new_tokens)]
        self.captioners += [
            Captioner(
                bundle,
                device,
                max_tiles,
                max_new_tokens=max_new_tokens,
                temperature=DRAWN_TEMPERATURE,
                top_p=DRAWN_TOP_P,
                seed=seed + number,  # with one seed all would draw the same caption
            )
            for number in range(candidates - 1)
        ]
        self.segmenter = Segmenter(bundle, device, max_tiles)
        self.direct = direct

    def run(
        self, dataset: ReferDataset, batch_size: int = 8, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[ReferSample, list[Cycled]]]:
        """Each image's annotations, and for each expression with a visible mask its caption and IoU, in order.

        Raises:
            DataError: an image cannot be read.
        """
        chosen = range(len(dataset)) if indices is None else indices
        with evaluating(self.segmenter.bundle.model):  # outermost, so that training mode is restored last
            # Side by side, image by image: the captions of a whole data set need not be held.
            passes = [captioner.run(dataset, batch_size, chosen) for captioner in self.captioners]
            for index, described in zip(chosen, zip(*passes, strict=True), strict=True):
                candidates = [captions for _, captions in described]
                sample = described[0][0]
                yield sample, self._found_again(dataset, index, sample, candidates=candidates, batch_size=batch_size)

    def _found_again(
        self,
        dataset: ReferDataset,
        index: int,
        sample: ReferSample,
        *,
        candidates: Sequence[Sequence[Caption]],
        batch_size: int,
    ) -> list[Cycled]:
        regions = [expression for expression in sample.expressions if has_pixels(expression)]
        texts = [caption.text for captions in candidates for caption in captions]
        if self.direct:
            texts += [expression.texts[0] for expression in regions if expression.texts]
        asked = {text: Expression((text,), ()) for text in texts if text.strip()}  # equal captions are segmented once
        found: dict[str, Segmentation] = {}
        if asked:
            # captioners hand on annotations alone, so the image is read again
            again = ReferList((dataset[index].evolve(expressions=tuple(asked.values())),))
            ((_, segmentations),) = self.segmenter.run(again, batch_size)
            found = {segmentation.text: segmentation for segmentation in segmentations}
        cycled = []
        for number, expression in enumerate(regions):
            each = [captions[number] for captions in candidates]
            ious = [_iou(found.get(caption.text), expression) for caption in each]
            best = ious.index(max(ious))  # of equal ones the most probable caption, which comes first
            own = _iou(found.get(expression.texts[0]), expression) if self.direct and expression.texts else None
            cycled.append(Cycled(each[best], ious[best], own, expression.texts))
        return cycled


def _iou(found: Segmentation | None, expression: Expression) -> float:
    if found is None:
        return 0.0
    intersection, predicted, wanted = overlap(found.mask_rle, expression.masks_rle)
    return intersection / (predicted + wanted - intersection)  # `wanted` is not 0: regions have pixels
