"""The detector as users call it: names in, boxes out.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> detector.predict(["garden.jpg"], ["raccoon", "cat"])[0].labels  # doctest: +SKIP
['raccoon']
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.data.detect.transforms import eval_transform
from deixis.data.detect.wordings import Wordings, checked_wordings, worded
from deixis.data.pixels.images import load
from deixis.data.pixels.video_file import rate_of
from deixis.errors import DataError, OptionError, PromptError
from deixis.evaluation.calibration import calibrated
from deixis.evaluation.coco_map import (
    MAX_DETECTIONS_FEDERATED,
    DetectionMetrics,
    detections_per_image,
    evaluate_detections,
)
from deixis.evaluation.thresholds import DEFAULT_THRESHOLD
from deixis.inference.detect.batch import detect_batch
from deixis.inference.detect.merging import SAME_IOU, merge_wordings, require_iou
from deixis.inference.detect.postprocess import postprocess
from deixis.inference.detect.slices import Window, cut_out, joined, require_slices, windows_of
from deixis.inference.detect.tracking import ObjectTracker, byte_tracker, tracked
from deixis.inference.device import best_device
from deixis.inference.eval_mode import evaluating
from deixis.inference.images import ImageInput, Picture, each_picture, sample_of
from deixis.inference.prefetch import read_batches
from deixis.models.checkpoints import MAX_SINKS, UsableDetector, chosen_sinks, load_usable_detector
from deixis.records import Dataset, Prompt, Sample, Vocabulary
from deixis.results.detections import Detections

__all__ = ["Detector", "Progress", "load_detector", "postprocess"]

Key = TypeVar("Key")
Progress = Callable[[int, int], None]
"""Called after every batch with the number of images done and the total."""

NO_PIXELS = Path()  # replaces the image of a sample when only its annotations are needed


def load_detector(
    folder_or_hub_id: str | Path,
    device: str | torch.device | None = None,
    prompt_names: int | None = None,
    *,
    slice: int | str | None = None,
    overlap: float = 0.2,
    wordings: Wordings | None = None,
    nms: float | None = None,
    across_classes: bool = False,
    sinks: int | None = None,
) -> Detector:
    """Load a detector that is ready to predict.

    Args:
        folder_or_hub_id: a folder written by deixis or transformers (also an adapter's), a hub id such as
            `IDEA-Research/grounding-dino-tiny`, `builtin` for the small one in the package, or a file that
            `deixis model export` wrote (`.onnx`, or `.xml` of OpenVINO).
        device: by default the first GPU, or the CPU if there is none.
        prompt_names, slice, overlap, wordings, nms, across_classes, sinks: see `Detector`.

    Raises:
        ModelError: the checkpoint is missing, incomplete or of another kind.

    >>> detector = load_detector("builtin", device="cpu")
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> len(detector.predict([image], ["red circle"], threshold=1.0)[0])  # nothing in a black image
    0
    """
    device = best_device(device)
    return Detector(
        load_usable_detector(folder_or_hub_id, str(device)),
        device,
        prompt_names,
        slice=slice,
        overlap=overlap,
        wordings=wordings,
        nms=nms,
        across_classes=across_classes,
        sinks=sinks,
    )


class Detector:
    """A Grounding DINO model with its tokenizer and image settings, on one device.

    It uses the bundle's model without a copy: predictions come from its current weights, also after further training,
    and every module keeps its mode (training or evaluation).

    Names that do not fit into one prompt are split over several, and the results merged; the image backbone still runs
    once per image.

    Args:
        prompt_names: maximum number of names per prompt; by default as many as fit. Names share a prompt's attention,
            so scores depend a little on this number.
        slice: side in pixels of the windows in which large images are seen, beside the whole; "auto" for windows that
            the model does not shrink, where it would shrink the image; None sees the whole alone. Small objects are
            found that way, and it takes a forward pass per window.
        overlap: of neighbouring windows, as a share of their side; larger than most objects that are looked for.
        wordings: what classes are asked for as, in place of what the model's folder says. What several wordings of a
            class find in one place is one detection, of the highest score.
        nms: of boxes of one class that overlap with this IoU or more, only the best is kept; None keeps all.
        across_classes: boxes of different classes suppress each other too, with an IoU of `nms`, or 0.7.
        sinks: attention sinks behind each prompt, against detections of what is not there: as many of the kind
            "brackets", 0 for none; by default those of the model's folder.

    Raises:
        OptionError: `prompt_names` is below 1, or `slice`, `overlap`, `nms` or `sinks` is invalid.
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
        self._prompts = lru_cache(maxsize=256)(self._build_prompts)

    @property
    def prompt_len(self) -> int:
        """Tokens that a prompt may have, beside the sinks."""
        return self.bundle.model.max_text_len - (0 if self.sinks is None else len(self.sinks))

    def reworded(self, wordings: Wordings) -> Detector:
        """The same detector with other wordings of some classes."""
        other = copy.copy(self)
        other.wordings = {**self.wordings, **wordings}
        other.use_sinks(self.sinks)  # and its own prompts
        return other

    @property
    def names(self) -> tuple[str, ...]:
        """The class names that the model was fine-tuned on, from its folder's `deixis.json`; may be empty."""
        return self.bundle.record.names

    def thresholds(self, names: Sequence[str], given: float | None = None) -> float | list[float]:
        """The score from which detections are shown: the one given, or that of each name; one where all are equal."""
        if given is not None:
            return given
        record = self.bundle.record
        of_known = record.thresholds.get("score", DEFAULT_THRESHOLD)
        chosen = [
            float(record.class_thresholds.get(name, of_known if name in record.names else DEFAULT_THRESHOLD))
            for name in names
        ]
        return chosen[0] if len(set(chosen)) == 1 else chosen

    def predict(
        self,
        images: ImageInput,
        names: Sequence[str] | Wordings | None = None,
        threshold: float | None = None,
        *,
        max_detections: int = 100,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> list[Detections]:
        """Detect the named objects in images.

        Args:
            images: one or many of path, folder, pattern, URL, PIL image, array, tensor, bytes, video; see
                `deixis.data.inputs.pictures`.
            names: class names to detect, any number; `class_ids` index them. By default the names that the model was
                fine-tuned on. With several wordings of a class, `{"car": ["car", "automobile"], "bus": ["bus"]}`.
            threshold: minimum score of a detection, in [0, 1]. By default what was chosen on validation data for the
                name, as `deixis.json` has it; 0.3 for names that the model was not fine-tuned on.
            max_detections: maximum number per image.
            batch_size: images per batch.

        Returns:
            One record per image (of a video, per frame), best first, with boxes in pixels of the image. `image_id` is
            the position among the images.

        Raises:
            DataError: an image cannot be read.
            OptionError: the threshold is outside [0, 1], or `batch_size` or `max_detections` is below 1.
            PromptError: the names are not a list, one of them is longer than a prompt, or there are none.
        """
        pictures = list(each_picture(images))
        found: list[Detections] = []
        for detections in self.stream(pictures, names, threshold, max_detections=max_detections, batch_size=batch_size):
            found.append(detections)
            if progress is not None and (len(found) % batch_size == 0 or len(found) == len(pictures)):
                progress(len(found), len(pictures))
        return found

    def stream(
        self,
        images: ImageInput,
        names: Sequence[str] | Wordings | None = None,
        threshold: float | None = None,
        *,
        max_detections: int = 100,
        batch_size: int = 4,
        unreadable: Callable[[Picture, DataError], None] | None = None,
    ) -> Iterator[Detections]:
        """The same, image by image, for folders, videos and generators that do not fit in memory.

        Args:
            unreadable: called with an image that cannot be read, which is then left out; without it that is an error.
        """
        if isinstance(names, Mapping):
            return self.reworded(checked_wordings(names)).stream(
                images,
                list(names),
                threshold,
                max_detections=max_detections,
                batch_size=batch_size,
                unreadable=unreadable,
            )
        names = self._checked(names, threshold)
        _require_counts(batch_size, max_detections)
        asked = Vocabulary(tuple(names))
        jobs = ((picture, partial(sample_of, picture, asked)) for picture in each_picture(images))
        found = self._run(jobs, batch_size, max_detections, failed=unreadable)
        least = np.broadcast_to(np.asarray(self.thresholds(names, threshold)), len(names))
        return (
            replace(one[one.scores >= least[one.class_ids]], image_id=number, image=picture)
            for number, (picture, _, one) in enumerate(found)
        )

    def track(
        self,
        frames: ImageInput,
        names: Sequence[str] | Wordings | None = None,
        threshold: float | None = None,
        *,
        rate: float | None = None,
        tracker: ObjectTracker | None = None,
        max_detections: int = 100,
        batch_size: int = 4,
    ) -> Iterator[Detections]:
        """Detect the named objects in the frames of one video and follow them: `track_ids` of each frame's detections.

        Args:
            frames: a video, or whatever `predict` takes as its frames, in order; a generator may be endless.
            threshold: as in `predict`; an object that is followed may score half of it.
            rate: frames per second; by default the video's own, or 30.
            tracker: of the library `trackers`; by default its ByteTrack. Each video needs a new one.
            batch_size: frames per batch; 1 for frames that come from a camera.

        Raises:
            OptionError: `trackers` is not installed; see also `predict`.
        """
        if isinstance(names, Mapping):
            return self.reworded(checked_wordings(names)).track(
                frames,
                list(names),
                threshold,
                rate=rate,
                tracker=tracker,
                max_detections=max_detections,
                batch_size=batch_size,
            )
        asked = self._checked(names, threshold)
        own = tracker is None
        if tracker is None:
            tracker = byte_tracker(rate or rate_of(frames))
        found = self.stream(frames, asked, 0.0, max_detections=max_detections, batch_size=batch_size)
        return tracked(found, self.thresholds(asked, threshold), tracker, relative=own)

    def _checked(self, names: Sequence[str] | None, threshold: float | None) -> Sequence[str]:
        """The names to detect; raises PromptError or OptionError where they or the threshold are none."""
        names = self.names if names is None else names
        if not names:
            raise PromptError("names is required: the model's folder stores none; write predict(images, ['raccoon'])")
        if isinstance(names, str):
            raise PromptError(f"names must be a list of class names, got the string {names!r}; write [{names!r}]")
        if threshold is not None and not 0 <= threshold <= 1:
            raise OptionError(f"threshold must be between 0 and 1, got {threshold}")
        return names

    def predict_dataset(
        self,
        dataset: Dataset,
        batch_size: int = 4,
        max_detections: int = 100,
        *,
        indices: Sequence[int] | None = None,
        workers: int = 2,
        progress: Progress | None = None,
    ) -> list[Detections]:
        """Detections for a data set's images, each with its own vocabulary or the phrases of its sentence as prompt.

        No score threshold is applied.

        Args:
            indices: which images, in order; all by default. Several processes can share a data set with it.
            workers: threads that read and resize images in advance.

        Returns:
            One record per image, best first, with boxes in pixels of the original image.

        Raises:
            DataError: an image cannot be read.
        """
        pairs = self._run_dataset(
            dataset, batch_size, max_detections, indices=indices, workers=workers, progress=progress
        )
        return [found for _, found in pairs]

    def evaluate(
        self,
        dataset: Dataset,
        batch_size: int = 4,
        limit: int | None = None,
        *,
        workers: int = 2,
        progress: Progress | None = None,
        max_detections: int | None = None,
        wanted_precision: float | None = None,
    ) -> tuple[DetectionMetrics, list[Detections]]:
        """COCO metrics on a data set, and the detections they were computed from.

        Args:
            limit: only the first N images.
            max_detections, wanted_precision: see `evaluate_detections`.

        Raises:
            DataError: an image cannot be read, or no object is annotated, so AP cannot be measured.
        """
        indices = range(len(dataset) if limit is None else min(limit, len(dataset)))
        # Whether LVIS's limit applies is known once all annotations are read, so its number is asked for, and cut
        # below.
        asked = max_detections or MAX_DETECTIONS_FEDERATED
        pairs = list(self._run_dataset(dataset, batch_size, asked, indices=indices, workers=workers, progress=progress))
        return measured_detections(pairs, dataset.vocabulary, max_detections, wanted_precision)

    def _run_dataset(
        self,
        dataset: Dataset,
        batch_size: int,
        max_detections: int,
        *,
        indices: Sequence[int] | None,
        workers: int,
        progress: Progress | None,
    ) -> Iterator[tuple[Sample, Detections]]:
        """Each image's annotations (without its pixels) and detections, in order."""
        _require_counts(batch_size, max_detections)
        chosen = range(len(dataset)) if indices is None else indices
        jobs = ((index, partial(dataset.__getitem__, index)) for index in chosen)
        results = self._run(jobs, batch_size, max_detections, workers=workers)
        for done, (_, truth, found) in enumerate(results, start=1):
            yield truth, found
            if progress is not None and (done % batch_size == 0 or done == len(chosen)):
                progress(done, len(chosen))

    def _run(
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
        batches = [windows[start : start + batch_size] for start in range(1, len(windows), batch_size)]
        parts: list[Detections] = []
        for batch in (windows[:1], *batches):  # the whole by itself: the squares beside it would be padded to its size
            cuts = [self._transform(cut_out(sample, window), np.random.default_rng(0)) for window in batch]
            parts += self._detect(cuts, max_detections)
        return joined(parts, windows, sample.size_hw, max_detections)

    def _detect(self, samples: Sequence[Sample], max_detections: int) -> list[Detections]:
        prompts, rows = zip(*map(self._prompts_for, samples), strict=True)
        most = max(int(np.bincount(of_image).max()) for of_image in rows)  # wordings of a class
        found = detect_batch(
            self.bundle,
            self.device,
            samples,
            prompts=prompts,
            max_detections=most * max_detections,
            sinks=self.sinks,
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
        asked, rows = worded(names, self.wordings, self.bundle.prompt_tokenizer)
        return self.bundle.prompts(asked, self.prompt_names, self.prompt_len), rows


def measured_detections(
    pairs: Sequence[tuple[Sample, Detections]],
    vocabulary: Vocabulary,
    max_detections: int | None,
    wanted_precision: float | None,
) -> tuple[DetectionMetrics, list[Detections]]:
    """COCO metrics of images' annotations and detections, and the detections that count; see `Detector.evaluate`.

    Raises:
        DataError: no object is annotated.
    """
    truth = [sample for sample, _ in pairs]
    count = max_detections or detections_per_image(truth)
    found = [detections.best(count) for _, detections in pairs]
    metrics = evaluate_detections(
        truth, found, vocabulary, max_detections=max_detections, wanted_precision=wanted_precision
    )
    if metrics.boxes == 0:
        raise DataError(f"{len(truth)} images without an annotated object: AP cannot be measured; use other data")
    return metrics, found


def _require_counts(batch_size: int, max_detections: int) -> None:
    if batch_size < 1 or max_detections < 1:
        raise OptionError(f"batch_size and max_detections must be at least 1, got {batch_size} and {max_detections}")
