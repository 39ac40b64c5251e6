"""What a detector run reads: training and validation data, and the prompts and transforms of each."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from deixis.data.batching.shard_order import Ratios
from deixis.data.batching.unreadable import UnreadableImages
from deixis.data.detect.augment import PRESETS, Augmentation, Augmented
from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.collate import collate_pairs
from deixis.data.detect.grounding import sentence_prompt
from deixis.data.detect.loading import SampleDataset
from deixis.data.detect.negatives import choose_names, fit_objects, fits, name_cost
from deixis.data.detect.prompts import PromptTokenizer, build_prompt
from deixis.data.detect.transforms import Transform, train_transform
from deixis.data.detect.wordings import Wordings, require_distinct, worded, wordings_of_classes
from deixis.data.formats import read_dataset
from deixis.data.formats.odvg.read import OdvgDataset
from deixis.data.formats.review.corrections import correction_line
from deixis.data.formats.shards.index import ShardRatios
from deixis.data.formats.shards.read import shard_index, shard_sizes
from deixis.data.scenes.images import SceneDataset
from deixis.data.sets.balance import Balance, repeat_factors
from deixis.data.sets.mixing import Joined, Mixture
from deixis.data.sets.split import duplicate_groups, hold_out
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.models.checkpoints import BUCKET_PX, DetectorBundle
from deixis.options.annotated_data import ClassTools
from deixis.options.detect_train import DetectData, DetectHardware, DetectImages
from deixis.options.groups import Loop
from deixis.recipes.data.chosen import EVERYTHING, Say, chosen, used_names
from deixis.recipes.run.data import SPLIT_SEED, RunData, held_out_shares, note_on_parts
from deixis.records import Batch, Dataset, Prompt, Sample, SampleList, Vocabulary
from deixis.training.feed import Feed

VALIDATION_SHARE = 0.2  # of the training data, where validation is all that is held out
SHARE_OF_EACH = 0.15  # for validation and for test, where both are
NOTHING_HELD_OUT = (
    "nothing is held out: all images train for the whole schedule, and the last weights are kept; figures on "
    "validation data are those of the training images themselves and say nothing of others"
)
MAX_COUNTED = 20_000  # training images whose classes are counted before a run; more would take minutes
MULTI_SCALE = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of the short side: DETR's 480 to 800


def read_training_data(data: DetectData, tools: ClassTools = EVERYTHING, masks: bool = False) -> RunData[Dataset]:
    """The data of a run; what is not given is held out of the training data.

    Args:
        tools: what is used of the data.
        masks: training data with its masks, where it has some.

    Raises:
        DataError: they cannot be read, are empty, or validation or test data has no object.
        OptionError: `tools` names no class of the data.
    """
    left_out: list[str] = []
    parts, validation, test, used = read_all(data, tools, left_out.append, masks=masks)
    images = sum(map(len, parts))
    shares: tuple[float, ...] = ()
    if validation is None and data.without_validation:
        validation = joined(parts)
    elif validation is None:
        shares = held_out_shares(images, VALIDATION_SHARE, SHARE_OF_EACH, test is not None)
        parts, *held = hold_out_of(parts, shares)
        validation = joined(held[0])
        test = joined(held[1]) if len(held) > 1 else test
    found = RunData(
        joined(parts),
        validation,
        test,
        NOTHING_HELD_OUT if data.without_validation else note_on_parts(shares, images, bool(data.test_data)),
        used=used,
        left_out=tuple(left_out),
        reviewed=tuple(filter(None, map(correction_line, data.data))),
    )
    for what, given, measured in (("validation", data.val_data, validation), ("test", data.test_data, test)):
        if measured is not None and not has_objects(measured):
            raise DataError(f"{given or ', '.join(data.data)}: no object in the {what} data; nothing can be measured")
    return found


def read_all(
    data: DetectData, tools: ClassTools = EVERYTHING, say: Say = lambda line: None, *, masks: bool = False
) -> tuple[list[Dataset], Dataset | None, Dataset | None, dict[str, str] | None]:
    """(training, validation, test) data with the classes that are used, and `used_names`; what is not given is None.

    Raises:
        DataError: they cannot be read.
        OptionError: `tools` names no class of any of them.
    """
    parts, measured = read_parts(data, masks), read_measured(data)
    used = used_names([*parts, *(one for one in measured if one is not None)], tools)
    parts = [chosen(part, tools, used, say) for part in parts]
    validation, test = (
        None if one is None else chosen(one, tools, used, lambda line: None, sample=False) for one in measured
    )
    return parts, validation, test, used


def with_wordings(bundle: DetectorBundle, texts: Sequence[str], names: Sequence[str], where: str) -> DetectorBundle:
    """The detector with wordings of the data's classes in its record, those given before those it has.

    Sinks and the calibration of its scores go: they do not hold for the weights that are trained.

    Args:
        where: the data, for messages.

    Raises:
        OptionError: a class that the data does not have.
        PromptError: two classes have the same wording.
    """
    given = {**bundle.record.wordings, **wordings_of_classes(texts, names, where)}
    wordings = {name: words for name, words in given.items() if name in names}
    require_distinct(names, wordings)
    return replace(bundle, sinks=None, record=replace(bundle.record, wordings=wordings, calibration={}, sinks={}))


def read_measured(data: DetectData) -> tuple[Dataset | None, Dataset | None]:
    """(validation, test) data, each None where it is not given.

    Raises:
        DataError: they cannot be read.
    """
    given = ((data.val_data, data.val_images), (data.test_data, data.test_images))
    validation, test = (
        read_dataset(path, images, data.format, masks=False) if path else None for path, images in given
    )
    return validation, test


def hold_out_of(parts: Sequence[Dataset], shares: Sequence[float]) -> list[list[Dataset]]:
    """The data sets without what is held out of them, then what is held out for each share, in data set order.

    An image held out of one data set is trained on in none, nor is a copy or near copy of it.

    Raises:
        DataError: an image cannot be read; a data set has too few images that differ.
    """
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    # copies across all data sets
    groups = [[places[place] for place in group] for group in duplicate_groups(joined(parts))]
    names = [str(getattr(part, "name", "data")) for part in parts]
    positions = hold_out(groups, names, [len(part) for part in parts], shares, SPLIT_SEED)
    roles = ("train", "validation", "test")
    return [
        [
            Subset(part, found[role], f"{name} ({roles[role]})")
            for part, name, found in zip(parts, names, positions, strict=True)
        ]
        for role in range(len(shares) + 1)
    ]


def has_objects(dataset: Dataset) -> bool:
    """Whether there is an object that is no crowd."""
    return any((~dataset[index].instances.is_crowd).any() for index in range(len(dataset)))


def read_parts(data: DetectData, masks: bool = False) -> list[Dataset]:
    """The training data sets, each with its own folder of images or with the one for all.

    Raises:
        DataError: one of them cannot be read.
    """
    places = zip(data.data, image_folders(data), strict=True)
    return [read_dataset(path, images, data.format, masks=masks) for path, images in places]


def image_folders(data: DetectData) -> Sequence[Path | None]:
    """The folder of images of each training data set."""
    return data.images if len(data.images) == len(data.data) else (data.images or (None,))[:1] * len(data.data)


def parts_of(dataset: Dataset) -> tuple[Dataset, ...]:
    """The data sets that one was joined from; itself where it was not."""
    return dataset.parts if isinstance(dataset, Joined) else (dataset,)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """One data set of several; a single one as it is."""
    return parts[0] if len(parts) == 1 else Joined(parts)


@dataclass(frozen=True)
class TrainingPrompts:
    """The prompt of a training sample: its sentence, or names (`choose_names`): all, or its own and some others.

    Names stand in a new order each time if `shuffle`. Of a class with several wordings, one is drawn each time.
    """

    tokenizer: PromptTokenizer
    max_text_len: int
    shuffle: bool
    max_names: int | None = None
    wordings: Wordings = field(default_factory=dict)

    def sentence(self, sample: Sample) -> Prompt | None:
        """The sample's sentence as its prompt, where that can be."""
        return sentence_prompt(sample, self.tokenizer, self.max_text_len)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prompt:
        sentence = self.sentence(sample)
        if sentence is not None:
            return sentence
        # A class is asked for by one of its wordings, and keeps its own name in the prompt, by which targets find it.
        drawn = {name: str(generator.choice(words)) for name, words in self._of(sample).items()}
        names = choose_names(
            reworded(sample, drawn),
            generator,
            self.tokenizer,
            self.max_text_len,
            self.max_names,
        )
        if self.shuffle:
            names = tuple(names[i] for i in generator.permutation(len(names)))
        prompt = build_prompt(names, self.tokenizer, self.max_text_len)
        classes = {wording: name for name, wording in drawn.items()}
        return replace(prompt, names=tuple(classes.get(name, name) for name in names)) if drawn else prompt

    def longest(self, sample: Sample) -> Sample:
        """The sample with the longest wording of each class as its name: what any prompt of it fits into."""
        costs = {
            name: max(words, key=lambda word: name_cost(word, self.tokenizer))
            for name, words in self._of(sample).items()
        }
        return reworded(sample, costs)

    def _of(self, sample: Sample) -> Wordings:
        """The wordings of the sample's classes, in the vocabulary's order."""
        names = sample.vocabulary.names if self.wordings else ()
        return {name: self.wordings[name] for name in names if name in self.wordings}


def reworded(sample: Sample, wordings: Mapping[str, str]) -> Sample:
    """The sample with other names of some classes."""
    if not wordings:
        return sample
    old = sample.vocabulary
    return sample.evolve(vocabulary=Vocabulary(tuple(wordings.get(n, n) for n in old.names), old.category_ids))


@dataclass(frozen=True)
class FittedTransform:
    """A transform, and after it no more classes than a prompt can ask for; see `fit_objects`."""

    transform: Transform
    prompts: TrainingPrompts

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        sample = self.transform(sample, generator)
        if self.prompts.sentence(sample) is not None:
            return sample
        longest = self.prompts.longest(sample)
        fitted = fit_objects(longest, generator, self.prompts.tokenizer, self.prompts.max_text_len)
        return fitted if longest is sample else fitted.evolve(vocabulary=sample.vocabulary)


def training_prompts(prompt_names: int | None, bundle: DetectorBundle, training: Dataset) -> TrainingPrompts:
    """The prompts of a run, of at most `prompt_names` names, with the wordings of the model's record.

    Names that no prompt can hold are found here, and images that show too many are counted.

    Raises:
        PromptError: names that cannot be told apart, or one longer than a prompt.
    """
    tokenizer, longest = bundle.prompt_tokenizer, bundle.model.max_text_len
    prompts = TrainingPrompts(tokenizer, longest, True, prompt_names, bundle.record.wordings)
    for part in parts_of(training):
        chunk_prompts(worded(part[0].vocabulary.names, prompts.wordings, tokenizer)[0], tokenizer, longest)
    if lies_in_files(training):
        looked_at = range(0, len(training), -(-len(training) // MAX_COUNTED))
        overfull = sum(not fits(prompts.longest(training[index]), tokenizer, longest) for index in looked_at)
        if overfull:
            warnings.warn(
                f"{overfull} of {len(looked_at)} training images show more classes than a prompt of {longest} tokens "
                "holds; each time they are seen, some of their classes are drawn and asked for",
                stacklevel=2,
            )
    return prompts


def training_feed(
    training: Dataset,
    prompts: TrainingPrompts,
    image_size: tuple[int, int],
    *,
    data: DetectData,
    images: DetectImages,
    loop: Loop,
    hardware: DetectHardware,
    seed: int,
    replayed: Dataset | None = None,
    replay_share: float = 0.0,
) -> Feed[Batch]:
    """Augmented, prompted, batched training data.

    Args:
        replayed: old pictures that are shown beside the training data, as `replay_share` of an epoch.
    """
    short_px, long_px = image_size
    preset, plain = PRESETS[images.augment or "light"], images.augment == "none"
    sizes = [round(short_px * share) for share in MULTI_SCALE] if images.multi_scale and not plain else [short_px]
    crops, flips = (0.0, 0.0) if plain else (images.crop_probability, images.flip_probability)
    transform = train_transform(sizes, long_px, crops, flips)
    if preset != Augmentation():
        transform = Augmented(transform, preset)
    shown = mixed(training, data, seed, replayed=replayed, replay_share=replay_share)
    return Feed(
        dataset=SampleDataset(
            shown, FittedTransform(transform, prompts), prompts, seed, decode_short_px=2 * short_px, mixed=preset
        ),
        collate=partial(collate_pairs, divisor=BUCKET_PX if hardware.compile else 1),
        batch_size=loop.batch_size,
        accumulation=loop.gradient_accumulation_steps,
        seed=seed,
        workers=hardware.num_workers,
        # of the data sets themselves: `Feed` picks those that an epoch shows
        aspect_ratios=aspect_ratios(training if replayed is None else joined([*parts_of(training), replayed])),
        shard_sizes=shard_sizes(shown),
        unreadable=UnreadableImages(data.max_unreadable_images),
    )


def mixed(training: Dataset, data: DetectData, seed: int, *, replayed: Dataset | None, replay_share: float) -> Dataset:
    """What epochs show: the training data, with its parts weighted, and with old pictures; see `training_feed`."""
    parts = parts_of(training)
    if data.balance_classes:
        samples = (part[index] for part in parts for index in range(len(part)))
        shown = [{sample.vocabulary.names[c] for c in sample.present_class_ids} for sample in samples]
        return Joined(parts, Balance.of(repeat_factors(shown, data.balance_classes), seed))
    if not (data.data_weights or data.epoch_length or replayed):
        return training
    sizes = [len(part) for part in parts]
    if replayed is None:
        return Joined(parts, Mixture.of(sizes, data.data_weights, data.epoch_length, seed))
    weights = data.data_weights or sizes
    of_new = (1 - replay_share) / sum(weights)
    shares = [*(weight * of_new for weight in weights), replay_share]
    length = round((data.epoch_length or sum(sizes)) / (1 - replay_share))
    return Joined([*parts, replayed], Mixture.of([*sizes, len(replayed)], shares, length, seed))


def aspect_ratios(dataset: Dataset) -> Ratios | None:
    """Width over height of every image, to batch like with like; None where that would mean decoding them."""
    shards = shard_index(dataset)
    if shards is not None:
        return ShardRatios(shards)
    if isinstance(dataset, Joined):
        parts = [np.asarray(ratios) for part in dataset.parts if (ratios := aspect_ratios(part)) is not None]
        return np.concatenate(parts) if len(parts) == len(dataset.parts) else None
    if isinstance(dataset, Subset):
        whole = aspect_ratios(dataset.dataset)
        return None if whole is None else whole[np.array(dataset.indices)]
    if isinstance(dataset, SceneDataset | OdvgDataset):  # both know sizes without making samples
        size_hw = dataset.size_hw
    elif lies_in_files(dataset):

        def size_hw(index: int) -> tuple[int, int]:
            return dataset[index].size_hw

    else:
        return None
    sizes = (size_hw(index) for index in range(len(dataset)))
    return np.fromiter((width / height for height, width in sizes), np.float32, len(dataset))


def lies_in_files(dataset: Dataset) -> bool:
    """Whether reading a sample is cheap: its image stays on disk."""
    return all(isinstance(part, SampleList) or isinstance(part[0].image, Path) for part in parts_of(dataset))


def fingerprint(dataset: Dataset) -> str:
    """A short text that is the same for the same annotations of the same images, in the same order."""
    if isinstance(dataset, Joined):
        return " + ".join(fingerprint(part) for part in dataset.parts)
    if isinstance(dataset, OdvgDataset):  # hashed already, while it was checked
        names = hashlib.sha256(repr(dataset.vocabulary.names).encode()).hexdigest()
        return f"{len(dataset)} images, {dataset.digest[:12]}, {names[:4]}"
    shards = shard_index(dataset)
    if shards is not None:  # which list the checksums of all files
        return f"{len(dataset)} images, {shards.digest[:12]}"
    if not lies_in_files(dataset):
        return f"{getattr(dataset, 'name', 'data')} ({len(dataset)} images)"
    digest = hashlib.sha256(repr(dataset.vocabulary.names).encode())
    for index in range(len(dataset)):
        sample = dataset[index]
        image = sample.image.name if isinstance(sample.image, Path) else ""
        digest.update(repr((image, sample.size_hw, sample.instances.class_ids.tolist())).encode())
        digest.update(np.ascontiguousarray(sample.instances.boxes_xyxy_px).tobytes())
    return f"{len(dataset)} images, {digest.hexdigest()[:12]}"
