"""Training items of the detector: decoded, transformed samples with their prompts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from deixis.data.batching.epochs import SEEDS, EpochDataset, Key
from deixis.data.detect.augment import Augmentation, mix, without_masks
from deixis.data.detect.transforms import Transform
from deixis.data.pixels.images import load
from deixis.records import Dataset, Prompt, Sample

PromptFor = Callable[[Sample, np.random.Generator], Prompt]


class SampleDataset(EpochDataset):
    """Decoded, transformed samples with their prompts, by (epoch, index).

    Args:
        dataset: where samples come from.
        transform: draws what is random from the generator it is handed.
        prompt_for: the prompt of a transformed sample; may draw too (negative names, order).
        seed: not negative.
        decode_short_px: lets JPEGs be decoded smaller, down to this short side; see `images.load_image`. Give the
            largest short side of the transform, divided by the smallest share of a crop.
        keep_masks: carry masks through the transform; without, they are dropped first, which saves their resizing
            (a detector's batch has no use for them).
        mixed: with which other samples are mixed into one before the transform.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        prompt_for: PromptFor,
        seed: int,
        decode_short_px: int | None = None,
        keep_masks: bool = False,
        mixed: Augmentation | None = None,
    ) -> None:
        super().__init__(dataset, seed)
        self.transform = transform
        self.prompt_for = prompt_for
        self.decode_short_px = decode_short_px
        self.keep_masks = keep_masks
        self.mixed = mixed

    def __getitem__(self, key: Key) -> tuple[Sample, Prompt]:
        """The sample of an epoch.

        Raises:
            DataError: its image cannot be read; the message names the file.
        """
        sample, generator = self.drawn(key)
        sample = self._decoded(sample)
        if self.mixed is not None and (self.mixed.paste or self.mixed.mosaic or self.mixed.mixup):
            sample = mix(sample, self.mixed, generator, partial(self._other, key[0], generator))
        sample = self.transform(sample, generator)
        prompt = self.prompt_for(sample, generator)
        return sample.evolve(seed=int(generator.integers(SEEDS))), prompt

    def _other(self, epoch: int, generator: np.random.Generator) -> Sample:
        """Any sample of an epoch, decoded."""
        sample, _ = self.drawn((epoch, int(generator.integers(len(self)))))
        return self._decoded(sample)

    def _decoded(self, sample: Sample) -> Sample:
        wanted = self.keep_masks or (self.mixed is not None and self.mixed.paste > 0)
        return load(sample if wanted else without_masks(sample), self.decode_short_px)
