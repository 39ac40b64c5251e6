"""The detector as users call it: names in, boxes out.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> detector.predict(["garden.jpg"], ["raccoon", "cat"])[0].labels  # doctest: +SKIP
['raccoon']
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from deixis.data.detect.wordings import Wordings, checked_wordings
from deixis.data.pixels.video_file import rate_of
from deixis.errors import DataError, OptionError, PromptError
from deixis.evaluation.coco_map import DetectionMetrics, evaluate_detections
from deixis.evaluation.cocos_form import MAX_DETECTIONS_FEDERATED, detections_per_image
from deixis.evaluation.thresholds import DEFAULT_THRESHOLD
from deixis.inference.detect.postprocess import postprocess
from deixis.inference.detect.samples import SampleDetector, require_counts
from deixis.inference.detect.tracking import ObjectTracker, byte_tracker, tracked
from deixis.inference.device import best_device
from deixis.inference.images import ImageInput, Picture, each_picture, sample_of
from deixis.models.checkpoints import load_usable_detector
from deixis.records import Dataset, Sample, Vocabulary
from deixis.results.detections import Detections

__all__ = ["Detector", "Progress", "load_detector", "postprocess"]

Progress = Callable[[int, int], None]
"""Called after every batch with the number of images done and the total."""


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


class Detector(SampleDetector):
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
        # Thresholds were chosen on validation data: they hold for the classes that it has.
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
        asking, names = self._asking(names, threshold)
        require_counts(batch_size, max_detections)
        asked = Vocabulary(tuple(names))
        jobs = ((picture, partial(sample_of, picture, asked)) for picture in each_picture(images))
        found = asking.run(jobs, batch_size, max_detections, failed=unreadable)
        # [names]: the minimum score of each
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
        asking, asked = self._asking(names, threshold)
        own = tracker is None
        if tracker is None:
            tracker = byte_tracker(rate or rate_of(frames))
        # Everything is passed on: trackers also use detections below the threshold, see `tracked`.
        found = asking.stream(frames, asked, 0.0, max_detections=max_detections, batch_size=batch_size)
        return tracked(found, self.thresholds(asked, threshold), tracker, relative=own)

    def _asking(
        self, names: Sequence[str] | Wordings | None, threshold: float | None
    ) -> tuple[Detector, Sequence[str]]:
        """The detector with the wordings given, and the names to detect.

        Raises:
            PromptError, OptionError: the names or the threshold are none.
        """
        asking = self
        if isinstance(names, Mapping):
            asking, names = self.reworded(checked_wordings(names)), list(names)
        names = self.names if names is None else names
        if not names:
            raise PromptError("names is required: the model's folder stores none; write predict(images, ['raccoon'])")
        if isinstance(names, str):
            raise PromptError(f"names must be a list of class names, got the string {names!r}; write [{names!r}]")
        if threshold is not None and not 0 <= threshold <= 1:
            raise OptionError(f"threshold must be between 0 and 1, got {threshold}")
        return asking, names

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
        require_counts(batch_size, max_detections)
        chosen = range(len(dataset)) if indices is None else indices
        jobs = ((index, partial(dataset.__getitem__, index)) for index in chosen)  # read later, in the threads of `run`
        results = self.run(jobs, batch_size, max_detections, workers=workers)
        for done, (_, truth, found) in enumerate(results, start=1):
            yield truth, found
            if progress is not None and (done % batch_size == 0 or done == len(chosen)):
                progress(done, len(chosen))


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
    found = [detections.best(count) for _, detections in pairs]  # more may have been asked for, see `Detector.evaluate`
    metrics = evaluate_detections(
        truth, found, vocabulary, max_detections=max_detections, wanted_precision=wanted_precision
    )
    if metrics.boxes == 0:
        raise DataError(f"{len(truth)} images without an annotated object: AP cannot be measured; use other data")
    return metrics, found
