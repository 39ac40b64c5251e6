"""The detector as users call it: names in, boxes out.

>>> from deixis import load_detector
>>> detector = load_detector("builtin")  # doctest: +SKIP
>>> detector.predict(["garden.jpg"], ["raccoon", "cat"])[0].labels  # doctest: +SKIP
['raccoon']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.grounding import sentence_prompt
from deixis.data.detect.transforms import eval_transform
from deixis.data.pixels.images import load
from deixis.errors import DataError, OptionError, PromptError
from deixis.evaluation.coco_map import (
    MAX_DETECTIONS_FEDERATED,
    DetectionMetrics,
    detections_per_image,
    evaluate_detections,
)
from deixis.inference.detect.batch import detect_batch
from deixis.inference.detect.postprocess import postprocess
from deixis.inference.eval_mode import evaluating
from deixis.inference.images import ImageInput, Pictures
from deixis.models.checkpoints import load_any_detector
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.records import Dataset, Detections, Prompt, Sample, Vocabulary

__all__ = ["Detector", "Progress", "load_detector", "postprocess"]

Progress = Callable[[int, int], None]
"""Called after every batch with the number of images done and the number of all."""

NOWHERE = Path()  # stands in for the pixels of a sample whose annotations alone are kept


def load_detector(
    folder_or_hub_id: str | Path, device: str | torch.device | None = None, prompt_names: int | None = None
) -> Detector:
    """A detector ready to predict.

    Args:
        folder_or_hub_id: a folder written by deixis or transformers (an adapter's too), a hub id such as
            `IDEA-Research/grounding-dino-tiny`, or `builtin` for the small one in the package.
        device: where it runs; by default the first GPU, else the CPU.
        prompt_names: see `Detector`.

    Raises:
        ModelError: the checkpoint is missing, foreign or incomplete.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Detector(load_any_detector(folder_or_hub_id), chosen, prompt_names)


class Detector:
    """A Grounding DINO model with its tokenizer and image settings, on one device.

    It borrows the bundle's model: weights trained after construction are the weights that predict, and every module is
    left in the mode (training or evaluation) it was found in.

    Names that do not fit into one prompt are asked for in several, and the results merged; the image backbone still
    runs once an image.

    Args:
        prompt_names: the most names of one prompt; as many as fit when not given. Names share a prompt's attention, so
            scores depend a little on it.
    """

    def __init__(
        self, bundle: GroundingDinoBundle, device: str | torch.device = "cpu", prompt_names: int | None = None
    ) -> None:
        if prompt_names is not None and prompt_names < 1:
            raise OptionError(f"prompt_names must be at least 1, got {prompt_names}")
        self.prompt_names = prompt_names
        self.bundle = bundle
        self.device = torch.device(device)
        bundle.model.to(self.device)
        self._transform = eval_transform(*bundle.image_size)
        self._prompts = lru_cache(maxsize=256)(self._build_prompts)

    @property
    def names(self) -> tuple[str, ...]:
        """The class names that the model was fine-tuned on, by the record in its folder; often none."""
        return self.bundle.record.names

    def predict(
        self,
        images: Iterable[ImageInput],
        names: Sequence[str] | None = None,
        threshold: float = 0.3,
        max_detections: int = 100,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> list[Detections]:
        """Find the named things in pictures.

        Args:
            images: paths, PIL images, or uint8 RGB arrays of shape (height, width, 3).
            names: what to look for, any number; the order is that of `class_ids`. The names that the model was
                fine-tuned on, where none are given.
            threshold: detections that score less are left out.
            max_detections: at most so many an image.

        Returns:
            One record an image, best first, boxes in pixels of the image. `image_id` is the position in `images`.

        Raises:
            DataError: an image cannot be read.
            PromptError: the names are no list, one of them is longer than a prompt, or none are given or stored.
        """
        names = self.names if names is None else names
        if not names:
            raise PromptError("names is required: the model's folder stores none; write predict(images, ['raccoon'])")
        if isinstance(names, str):
            raise PromptError(f"names must be a list of class names, got the string {names!r}; write [{names!r}]")
        if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
            raise DataError("images must be a list; write [image] for a single one")
        if not 0 <= threshold <= 1:
            raise OptionError(f"threshold must be between 0 and 1, got {threshold}")
        pictures = Pictures(list(images), Vocabulary(tuple(names)))
        found = self.predict_dataset(pictures, batch_size, max_detections, progress=progress)
        return [detections.above(threshold) for detections in found]

    def predict_dataset(
        self,
        dataset: Dataset,
        batch_size: int = 4,
        max_detections: int = 100,
        indices: Sequence[int] | None = None,
        workers: int = 2,
        progress: Progress | None = None,
    ) -> list[Detections]:
        """Detections for a data set's images, each asked for its own vocabulary, or for the phrases of its sentence.

        Nothing is left out by score.

        Args:
            indices: which images, in order; all by default. (Several processes can share a data set by it.)
            workers: threads that read and resize images ahead of the model.

        Raises:
            DataError: an image cannot be read.
        """
        return [found for _, found in self._run(dataset, batch_size, max_detections, indices, workers, progress)]

    def evaluate(
        self,
        dataset: Dataset,
        batch_size: int = 4,
        limit: int | None = None,
        workers: int = 2,
        progress: Progress | None = None,
        max_detections: int | None = None,
    ) -> tuple[DetectionMetrics, list[Detections]]:
        """COCO metrics on a data set, and the detections they were computed from.

        Args:
            limit: only the first so many images.
            max_detections: detections of an image that count; see `evaluate_detections`.

        Raises:
            DataError: an image cannot be read, or no object is annotated, so that nothing can be measured.
        """
        indices = range(len(dataset) if limit is None else min(limit, len(dataset)))
        asked = max_detections or MAX_DETECTIONS_FEDERATED
        pairs = list(self._run(dataset, batch_size, asked, indices, workers, progress))
        truth = [sample for sample, _ in pairs]
        most = max_detections or detections_per_image(truth)
        found = [detections.best(most) for _, detections in pairs]
        metrics = evaluate_detections(truth, found, dataset.vocabulary, max_detections)
        if metrics.boxes == 0:
            raise DataError(f"{len(truth)} images without an annotated object: AP cannot be measured; use other data")
        return metrics, found

    def _run(
        self,
        dataset: Dataset,
        batch_size: int,
        max_detections: int,
        indices: Sequence[int] | None,
        workers: int,
        progress: Progress | None,
    ) -> Iterator[tuple[Sample, Detections]]:
        """Each image's annotations (without its pixels) and detections, in order."""
        if batch_size < 1 or max_detections < 1:
            raise OptionError(
                f"batch_size and max_detections must be at least 1, got {batch_size} and {max_detections}"
            )
        chosen = range(len(dataset)) if indices is None else indices
        done = 0
        with evaluating(self.bundle.model):
            for prepared in self._prepare(dataset, chosen, batch_size, workers):
                truth, samples = zip(*prepared, strict=True)
                yield from zip(truth, self._detect(samples, max_detections), strict=True)
                done += len(samples)
                if progress is not None:
                    progress(done, len(chosen))

    def _prepare(
        self, dataset: Dataset, indices: Sequence[int], batch_size: int, workers: int
    ) -> Iterator[list[tuple[Sample, Sample]]]:
        """Batches of (annotations, resized image); the next batch is read while the model works on this one."""

        def prepare(index: int) -> tuple[Sample, Sample]:
            sample = load(dataset[index])
            return sample.evolve(image=NOWHERE), self._transform(sample, np.random.default_rng(0))

        batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            ahead = [pool.submit(prepare, index) for index in batches[0]] if batches else []
            for following in [*batches[1:], []] if batches else []:
                current, ahead = ahead, [pool.submit(prepare, index) for index in following]
                yield [future.result() for future in current]

    def _detect(self, samples: Sequence[Sample], max_detections: int) -> list[Detections]:
        prompts = [self._prompts_for(sample) for sample in samples]
        found = detect_batch(self.bundle, self.device, samples, prompts, max_detections)
        # The very names asked for: a thousand names an image are then held, and compared, once.
        return [replace(one, names=sample.vocabulary.names) for one, sample in zip(found, samples, strict=True)]

    def _prompts_for(self, sample: Sample) -> tuple[Prompt, ...]:
        sentence = sentence_prompt(sample, self.bundle.prompt_tokenizer, self.bundle.model.max_text_len)
        return self._prompts(sample.vocabulary.names) if sentence is None else (sentence,)

    def _build_prompts(self, names: tuple[str, ...]) -> tuple[Prompt, ...]:
        return chunk_prompts(names, self.bundle.prompt_tokenizer, self.bundle.model.max_text_len, self.prompt_names)
