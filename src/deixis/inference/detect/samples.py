"""Detections in samples: prompts, windows of large images, batches, and what several passes find joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.batch_records import Prompt
from deixis.data.detect.transforms import eval_transform
from deixis.data.detect.wordings import Wordings, worded
from deixis.data.pixels.images import load
from deixis.errors import DataError, OptionError
from deixis.evaluation.calibration import calibrated
from deixis.geometry.pixel_boxes import overlaps
from deixis.inference.detect.batch import detect_batch
from deixis.inference.detect.slices import Window, cut_out, joined, require_slices, windows_of
from deixis.inference.eval_mode import evaluating
from deixis.inference.prefetch import read_batches
from deixis.models.checkpoints import MAX_SINKS, UsableDetector, chosen_sinks
from deixis.records import Sample
from deixis.results.detections import Detections

Key = TypeVar("Key")
NO_PIXELS = Path()  # replaces the image of a sample when only its annotations are needed


class SampleDetector:
    """A model on a device that finds the classes of samples; `Detector` gives it what users have.

    Args: see `Detector`.

    Raises:
        OptionError: see `Detector`.
    """

    def __init__(
        self,
        bundle: UsableDetector,
        device: str | torch.device = "cpu",
        prompt_names: int | None = None,
        *,
        slice: int | str | None = None,
        overlap: float = 0.2,
        wordings: Wordings | None = None,
        nms: float | None = None,
        across_classes: bool = False,
        sinks: int | None = None,
    ) -> None:
        require_slices(slice, overlap)
        require_iou("nms", nms)
        if sinks is not None and not 0 <= sinks <= MAX_SINKS:
            raise OptionError(f"sinks must be from 0 to {MAX_SINKS}, got {sinks}")
        self.slice, self.overlap = slice, overlap
        self.nms, self.across_classes = nms, across_classes
        self.calibration = bundle.record.calibration
        self.use_sinks(chosen_sinks(bundle, sinks))
        self.wordings = {**bundle.record.wordings, **(wordings or {})}
        if prompt_names is not None and prompt_names < 1:
            raise OptionError(f"prompt_names must be at least 1, got {prompt_names}")
        self.prompt_names = prompt_names
        self.bundle = bundle
        self.device = torch.device(device)
        bundle.model.to(self.device)
        self._transform = eval_transform(*bundle.image_size)

    def use_sinks(self, sinks: Float[Tensor, "sinks channels"] | None) -> None:
        """Other attention sinks from now on, or none."""
        self.sinks = sinks
        # a data set asks for the same names again and again; prompts depend on sinks, which take tokens
        self._prompts = lru_cache(maxsize=256)(self._build_prompts)

    @property
    def prompt_len(self) -> int:
        """Tokens that a prompt may have, beside the sinks."""
        return self.bundle.model.max_text_len - (0 if self.sinks is None else len(self.sinks))

    def run(
        self,
        jobs: Iterable[tuple[Key, Callable[[], Sample]]],
        batch_size: int,
        max_detections: int,
        *,
        workers: int = 2,
        failed: Callable[[Key, DataError], None] | None = None,
    ) -> Iterator[tuple[Key, Sample, Detections]]:
        """Each job's key, annotations (without pixels) and detections, in order; jobs read samples, in threads.

        The model is in evaluation mode only while it computes: between two results callers may do as they like.
        """

        def prepare(read: Callable[[], Sample]) -> tuple[Sample, Sample, list[Window]]:
            sample = load(read())
            short_px = self.bundle.image_size[0]
            windows = windows_of(sample.size_hw, self.slice, self.overlap, model_short_px=short_px)
            return sample.evolve(image=NO_PIXELS), self._whole(sample, windows), windows

        for ready in read_batches(jobs, prepare, batch_size, workers=workers, failed=failed):
            truth, samples, windows = zip(*(prepared for _, prepared in ready), strict=True)
            with evaluating(self.bundle.model):
                if all(len(of_image) == 1 for of_image in windows):
                    found = self._detect(samples, max_detections)
                else:
                    pairs = zip(samples, windows, strict=True)
                    found = [self._sliced(one, cuts, batch_size, max_detections) for one, cuts in pairs]
            # calibration keeps the order of scores, so it may come last
            if self.nms is not None or self.across_classes:
                found = [one.with_nms(self.nms or SAME_IOU, self.across_classes) for one in found]
            if self.calibration:
                found = [replace(one, scores=calibrated(one.scores, self.calibration)) for one in found]
            yield from ((key, mine, one) for (key, _), mine, one in zip(ready, truth, found, strict=True))

    def _whole(self, sample: Sample, windows: Sequence[Window]) -> Sample:
        """An image ready for the model; one that is to be sliced keeps its pixels."""
        # nothing is drawn: evaluation only resizes
        return sample if len(windows) > 1 else self._transform(sample, np.random.default_rng(0))

    def _sliced(self, sample: Sample, windows: Sequence[Window], batch_size: int, max_detections: int) -> Detections:
        """The detections of one image, from a batch of its windows at a time."""
        if len(windows) == 1:
            return self._detect([sample], max_detections)[0]
        # windows but the first (the whole) have one size, and share batches
        batches = [windows[start : start + batch_size] for start in range(1, len(windows), batch_size)]
        parts: list[Detections] = []
        for batch in (windows[:1], *batches):  # the whole by itself: the squares beside it would be padded to its size
            cuts = [self._transform(cut_out(sample, window), np.random.default_rng(0)) for window in batch]
            parts += self._detect(cuts, max_detections)
        return joined(parts, windows, sample.size_hw, max_detections)

    def _detect(self, samples: Sequence[Sample], max_detections: int) -> list[Detections]:
        prompts, rows = zip(*map(self._prompts_for, samples), strict=True)
        most = max(int(np.bincount(of_image).max()) for of_image in rows)  # wordings of a class
        # Of several wordings of a class only the best box stays, so as many times more are asked for.
        found = detect_batch(
            self.bundle, self.device, samples, prompts=prompts, max_detections=most * max_detections, sinks=self.sinks
        )
        # The vocabulary's own tuple: a thousand names are then stored once, not once per image, and compare fast.
        names = [sample.vocabulary.names for sample in samples]
        if most == 1:
            return [replace(one, names=own) for one, own in zip(found, names, strict=True)]
        iou = self.nms or SAME_IOU
        parts = zip(found, rows, names, strict=True)
        return [merge_wordings(one, of_image, own, count=max_detections, iou=iou) for one, of_image, own in parts]

    def _prompts_for(self, sample: Sample) -> tuple[tuple[Prompt, ...], tuple[int, ...]]:
        """An image's prompts, and the class of each of their names."""
        sentence = self.bundle.sentence(sample, self.prompt_len)
        names = sample.vocabulary.names
        return self._prompts(names) if sentence is None else ((sentence,), tuple(range(len(names))))

    def _build_prompts(self, names: tuple[str, ...]) -> tuple[tuple[Prompt, ...], tuple[int, ...]]:
        # every wording is a name of its own in the prompt; `rows` has the class of each
        asked, rows = worded(names, self.wordings, self.bundle.prompt_tokenizer)
        return self.bundle.prompts(asked, self.prompt_names, self.prompt_len), rows


def require_counts(batch_size: int, max_detections: int) -> None:
    if batch_size < 1 or max_detections < 1:
        raise OptionError(f"batch_size and max_detections must be at least 1, got {batch_size} and {max_detections}")


SAME_IOU = 0.7
"""Boxes of two wordings with this IoU are one object."""


def require_iou(name: str, iou: float | None) -> None:
    """Raises OptionError for an IoU at which boxes without any overlap would suppress each other."""
    if iou is not None and not 0 < iou <= 1:
        raise OptionError(f"{name}: expected a number above 0, at most 1, got {iou}")


def merge_wordings(
    found: Detections, rows: Sequence[int], names: tuple[str, ...], *, count: int, iou: float = SAME_IOU
) -> Detections:
    """The detections of one image, found by wordings, as those of classes: of boxes on one object the best stays.

    Two boxes are on one object where they are of one class and different wordings. Boxes of the same wording never
    replace each other: the model itself decides there.

    Args:
        found: best first.
        rows: the class of each wording, as a position in `names`.
        count: how many are kept.
        iou: overlap of boxes on one object.

    >>> boxes = np.array([[0.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 8]])
    >>> found = Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]), ("car", "sedan"))
    >>> merge_wordings(found, [0, 0], ("car",), count=9).scores.tolist()
    [0.9, 0.7]
    """
    wording, class_ids = found.class_ids, np.asarray(rows, np.int64)[found.class_ids]  # [n] each
    several = np.bincount(rows, minlength=len(names)) > 1  # [classes]; classes of one wording have nothing to merge
    gone = np.zeros(len(found), bool)
    for place in np.flatnonzero(several[class_ids]):
        if not gone[place]:
            # `found` is best first, so only what comes after can give way
            after = place + 1 + np.flatnonzero((class_ids == class_ids[place])[place + 1 :])
            after = after[wording[after] != wording[place]]
            gone[after] |= overlaps(found.boxes_xyxy_px[place], found.boxes_xyxy_px[after])[0] >= iou
    return replace(found, class_ids=class_ids, names=names)[~gone].best(count)
