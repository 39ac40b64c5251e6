"""Training batches of the segmenter: a function of (seed, epoch, sample index) and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from deixis.data.conversation import ConversationEncoder, training_turns
from deixis.data.images import load_image
from deixis.data.loading import DetectionLoader, Key, quiet_worker, sample_generator
from deixis.data.refer_collate import Question, Views, collate_questions
from deixis.data.refer_mixing import ReferMix
from deixis.errors import DataError, DeixisError, OptionError
from deixis.refer_records import ReferDataset, ReferSample


class QuestionDataset(torch.utils.data.Dataset):
    """Decoded samples with a conversation drawn for the epoch, by (epoch, index).

    Args:
        most_masks: masks in a conversation at most.
        seed: not negative.
        behaviour: which answers the model learns to give; see `conversation.ANSWERS`.
    """

    def __init__(self, dataset: ReferDataset, most_masks: int, seed: int, behaviour: str = "deixis") -> None:
        if seed < 0:
            raise OptionError(f"seed must be 0 or more, got {seed}")
        self.dataset = dataset
        self.most_masks = most_masks
        self.seed = seed
        self.behaviour = behaviour

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Question | DeixisError:
        """The question, or the error that reading it gave: raised in a worker, it would come wrapped in a traceback."""
        epoch, index = key
        try:
            sample = decoded(_drawn(self.dataset, epoch, index))
            turns, asked = training_turns(
                sample.expressions, self.most_masks, sample_generator(self.seed, epoch, index), self.behaviour
            )
        except DeixisError as error:
            return error
        return Question(sample, tuple(turns), tuple(asked))


def _drawn(dataset: ReferDataset, epoch: int, index: int) -> ReferSample:
    """A mix shows other samples in each epoch, any other data set the same."""
    return dataset.at(epoch, index) if isinstance(dataset, ReferMix) else dataset[index]


def decoded(sample: ReferSample) -> ReferSample:
    """The sample with its pixels.

    Raises:
        DataError: the image cannot be read, or has another size than its annotation says.
    """
    if not isinstance(sample.image, Path):
        return sample
    pixels = load_image(sample.image)
    if pixels.shape[:2] != sample.size_hw:
        raise DataError(
            f"{sample.source}: {sample.image} is {pixels.shape[:2]}, its annotation says {sample.size_hw} "
            "(height, width); correct the annotation"
        )
    return sample.evolve(image=pixels)


def make_refer_loader(
    dataset: QuestionDataset,
    batches: Iterable[list[Key]],
    encode: ConversationEncoder,
    views: Views,
    pad_token_id: int,
    most_tokens: int,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of the given batches (`loading.epoch_batches`), in order."""
    return DetectionLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_Collate(encode, views, pad_token_id, most_tokens),
        worker_init_fn=quiet_worker if workers else None,
        generator=torch.Generator(),  # else each epoch would draw from, and so move, torch's global state
    )


class _Collate:
    def __init__(self, encode: ConversationEncoder, views: Views, pad_token_id: int, most_tokens: int) -> None:
        self.encode, self.views, self.pad_token_id, self.most_tokens = encode, views, pad_token_id, most_tokens

    def __call__(self, items: Sequence[Question | DeixisError]) -> Any:
        errors = [item for item in items if isinstance(item, DeixisError)]
        if errors:
            return errors[0]
        questions = [item for item in items if isinstance(item, Question)]
        try:
            return collate_questions(questions, self.encode, self.views, self.pad_token_id, self.most_tokens)
        except DeixisError as error:
            return error
