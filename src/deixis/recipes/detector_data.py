"""What a detector run reads: training and validation data, and the prompts and transforms of each."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deixis.data.chunking import chunk_prompts
from deixis.data.loading import SampleDataset
from deixis.data.negatives import NameFeatures, choose_names, fit_objects, fits
from deixis.data.prompts import PromptTokenizer, build_prompt
from deixis.data.readers import read_dataset
from deixis.data.scenes import SceneDataset
from deixis.data.split import split_by_group
from deixis.data.transforms import Transform, train_transform
from deixis.errors import DataError
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.name_features import name_features
from deixis.recipes.options import DetectTrainOptions
from deixis.records import Dataset, Prompt, Sample, SampleList
from deixis.training.detector_task import Feed

VALIDATION_SHARE = 0.2
SPLIT_SEED = 0  # fixed, so that every run of a data set holds out the same images
MULTI_SCALE = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of the short side: DETR's 480 to 800


def read_training_data(options: DetectTrainOptions) -> tuple[Dataset, Dataset]:
    """(training, validation) data.

    Raises:
        DataError: they cannot be read, are empty, or the validation data has no object.
    """
    training = read_dataset(options.data, options.images, options.format)
    if options.val_data:
        validation = read_dataset(options.val_data, options.val_images, options.format)
    else:
        training, validation = split_by_group(training, 1 - VALIDATION_SHARE, SPLIT_SEED)
    if not any((~validation[i].instances.is_crowd).any() for i in range(len(validation))):
        raise DataError(
            f"{options.val_data or options.data}: no object in the validation data; nothing can be measured"
        )
    return training, validation


@dataclass(frozen=True)
class TrainingPrompts:
    """The prompt of a training sample, by `choose_names`: all names, or its own and some that it does not show.

    They stand in a new order each time if `shuffle`.
    """

    tokenizer: PromptTokenizer
    max_text_len: int
    shuffle: bool
    most_names: int | None = None
    hard_negatives: float = 0.0
    features: NameFeatures | None = None

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prompt:
        names = choose_names(
            sample,
            generator,
            self.tokenizer,
            self.max_text_len,
            self.most_names,
            self.hard_negatives,
            self.features,
        )
        if self.shuffle:
            names = tuple(names[i] for i in generator.permutation(len(names)))
        return build_prompt(names, self.tokenizer, self.max_text_len)


@dataclass(frozen=True)
class FittedTransform:
    """A transform, and after it no more classes than a prompt can ask for; see `fit_objects`."""

    transform: Transform
    prompts: TrainingPrompts

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        sample = self.transform(sample, generator)
        return fit_objects(sample, generator, self.prompts.tokenizer, self.prompts.max_text_len)


def training_prompts(options: DetectTrainOptions, bundle: GroundingDinoBundle, training: Dataset) -> TrainingPrompts:
    """The prompts of a run. Names that no prompt can hold are found here, and images that show too many are counted.

    Raises:
        PromptError: names that cannot be told apart, or one longer than a prompt.
    """
    tokenizer, longest, names = bundle.prompt_tokenizer, bundle.model.max_text_len, training[0].vocabulary.names
    chunk_prompts(names, tokenizer, longest)
    features = None
    if options.hard_negatives:
        names = training.vocabulary.names
        features = NameFeatures({name: row for row, name in enumerate(names)}, name_features(bundle, names))
    if lies_in_files(training):
        overfull = sum(not fits(training[index], tokenizer, longest) for index in range(len(training)))
        if overfull:
            warnings.warn(
                f"{overfull} of {len(training)} training images show more classes than a prompt of {longest} tokens "
                "holds; each time they are seen, some of their classes are drawn and asked for",
                stacklevel=2,
            )
    return TrainingPrompts(
        tokenizer, longest, options.shuffle_names, options.prompt_names, options.hard_negatives, features
    )


def training_feed(
    training: Dataset, options: DetectTrainOptions, prompts: TrainingPrompts, image_size: tuple[int, int]
) -> Feed:
    """Augmented, prompted, batched training data."""
    short_px, long_px = image_size
    sizes = [round(short_px * share) for share in MULTI_SCALE] if options.multi_scale else [short_px]
    transform = train_transform(sizes, long_px, options.crop_probability, options.flip_probability)
    dataset = SampleDataset(
        training, FittedTransform(transform, prompts), prompts, options.seed, decode_short_px=2 * short_px
    )
    ratios = aspect_ratios(training)
    return Feed(dataset, options.batch_size, options.gradient_accumulation_steps, options.seed, options.workers, ratios)


def aspect_ratios(dataset: Dataset) -> list[float] | None:
    """Width over height of every image, to batch like with like; None where that would mean decoding them."""
    if isinstance(dataset, SceneDataset):
        sizes_hw = [dataset.size_hw(index) for index in range(len(dataset))]
    elif lies_in_files(dataset):
        sizes_hw = [dataset[index].size_hw for index in range(len(dataset))]
    else:
        return None
    return [width / height for height, width in sizes_hw]


def lies_in_files(dataset: Dataset) -> bool:
    """Whether reading a sample is cheap: its image stays on disk."""
    return isinstance(dataset, SampleList) or isinstance(dataset[0].image, Path)


def fingerprint(dataset: Dataset) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if not lies_in_files(dataset):
        return f"{getattr(dataset, 'name', 'data')} ({len(dataset)} images)"
    digest = hashlib.sha256(repr(dataset.vocabulary.names).encode())
    for index in range(len(dataset)):
        sample = dataset[index]
        image = sample.image.name if isinstance(sample.image, Path) else ""
        digest.update(repr((image, sample.size_hw, sample.instances.class_ids.tolist())).encode())
        digest.update(np.ascontiguousarray(sample.instances.boxes_xyxy_px).tobytes())
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"
