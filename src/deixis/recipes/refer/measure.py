"""How a segmenter run measures: in the run's precision, each process taking its share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from deixis.data.refer.conversation import has_pixels
from deixis.evaluation.captions import evaluate_captions
from deixis.evaluation.refer_iou import evaluate_segmentations
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.recipes.refer.presence import emptied, every_mask_shown, fit_threshold
from deixis.recipes.run.outputs import warn_once
from deixis.refer_records import ReferDataset
from deixis.training.processes import gather_in_order

CAPTION_METRICS = ("CIDEr", "METEOR", "NLTK METEOR", "exact")


@dataclass(frozen=True)
class SegmenterMeasure:
    """cIoU and gIoU of segmenters, and metrics of captions.

    Attributes:
        batch_size: phrases, or masks to describe.
        max_images: only the first are measured; None for all.
        max_tiles: of an image, for the vision-language model.
        captions: whether masks are described too.
    """

    accelerator: Accelerator
    batch_size: int
    max_images: int | None
    max_tiles: int
    captions: bool

    def __call__(self, segmenter: Segmenter, dataset: ReferDataset, fit: bool = False) -> dict[str, Any]:
        """Metrics of a segmenter as it is.

        Args:
            fit: first fit its presence threshold on the data.
        """
        accelerator = self.accelerator
        count = min(len(dataset), self.max_images or len(dataset))
        mine = range(accelerator.process_index, count, accelerator.num_processes)
        # All masks first: the threshold that empties some is fitted on them, or applied afterwards.
        with accelerator.autocast(), every_mask_shown(segmenter):
            found = list(zip(mine, segmenter.run(dataset, self.batch_size, mine), strict=True))
        everything = gather_in_order(accelerator, found)
        truth, shown = [sample for sample, _ in everything], [answers for _, answers in everything]
        fitted = fit_threshold(segmenter, truth, shown) if fit else {}  # in every process alike: all have all answers
        metrics = evaluate_segmentations(truth, emptied(segmenter, shown)).as_dict() | fitted
        if self.captions:
            captioner = Captioner(segmenter.bundle, accelerator.device, self.max_tiles)
            metrics |= self._caption_metrics(captioner, dataset, mine)
        return metrics

    def of_folder(self, folder: Path | None, segmenter: Segmenter, dataset: ReferDataset) -> dict[str, Any]:
        """Metrics of the segmenter in a folder; of the run's own without."""
        if folder is not None:
            segmenter = load_segmenter(folder, self.accelerator.device, self.max_tiles)
        return self(segmenter, dataset)

    def _caption_metrics(self, captioner: Captioner, dataset: ReferDataset, mine: Sequence[int]) -> dict[str, Any]:
        """CIDEr-D, METEOR and the share of exact captions; empty if no image has a mask with a phrase.

        METEOR is measured by the main process alone, as each would start a Java of its own; left out without Java.

        Args:
            mine: indices of the images that this process describes.
        """
        accelerator = self.accelerator
        with accelerator.autocast():
            found = list(zip(mine, captioner.run(dataset, self.batch_size, mine), strict=True))
        everything = gather_in_order(accelerator, found)
        truth = [sample for sample, _ in everything]
        if not any(e.texts and has_pixels(e) for sample in truth for e in sample.expressions):
            return {}
        captions = [captions for _, captions in everything]
        metrics = evaluate_captions(truth, captions, with_meteor=accelerator.is_main_process)
        if metrics.meteor_missing:
            warn_once(metrics.meteor_missing)
        values = metrics.as_dict()
        return {name: values[name] for name in CAPTION_METRICS if name in values}
