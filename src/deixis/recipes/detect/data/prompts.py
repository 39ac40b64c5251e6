"""The prompts of a detector's training samples, and transforms that keep what a prompt can ask for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deixis.batch_records import Prompt
from deixis.data.detect.chunking import choose_names, chunk_prompts, fit_objects, fits, name_cost
from deixis.data.detect.grounding import sentence_prompt
from deixis.data.detect.prompts import PromptTokenizer, build_prompt
from deixis.data.detect.transforms import Transform
from deixis.data.detect.wordings import Wordings, require_distinct, worded, wordings_of_classes
from deixis.models.checkpoints import DetectorBundle
from deixis.recipes.detect.data.facts import lies_in_files, parts_of
from deixis.records import Dataset, Sample, Vocabulary

MAX_COUNTED = 20_000  # training images whose classes are counted before a run; more would take minutes


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
        names = choose_names(reworded(sample, drawn), generator, self.tokenizer, self.max_text_len, self.max_names)
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
        # Fitted by the longest wordings, as any of them may be drawn; the sample keeps its own names.
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
    # Names that cannot be told apart, or do not fit, are an error now and not in a loading worker.
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
