"""`deixis refer caption --engine ray`: the same captions from many workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from deixis.geometry.rle import counts_rle, plain_rle
from deixis.inference.refer.captioner import Captioner, load_captioner
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.items import Item, dataset_items
from deixis.recipes.engine.parts import Answer
from deixis.recipes.engine.ray_run import Work, all_contents, each_answer, ray_answers
from deixis.refer_records import Caption, ReferDataset, ReferSample

SETTINGS = ("max_tiles", "max_new_tokens", "temperature", "top_p", "seed")


def captioner_of(options: ReferCaptionOptions, device: str | torch.device) -> Captioner:
    """The captioner that the options ask for.

    Raises:
        ModelError: it cannot be read.
    """
    return load_captioner(options.model, device, **{name: getattr(options, name) for name in SETTINGS})


def captions_on_ray(
    options: ReferCaptionOptions, dataset: ReferDataset, weights: str
) -> list[tuple[ReferSample, list[Caption]]]:
    """Each image's annotations and its captions, in order.

    Args:
        weights: the digest of the model's.

    Raises:
        DataError: an image cannot be read; errors.parquet has all of them.
    """
    settings = {name: getattr(options, name) for name in SETTINGS}
    answers = ray_answers(
        partial(captioning, options, dataset),
        dataset_items(options.masks, len(dataset)),
        options.group(Engine),
        output=options.output,
        made_by={"weights": weights, "data": dataset.name, "measure": options.measure, **settings},
        model=options.model,
        batch_size=options.batch_size,
    )
    found = []
    for index, content in enumerate(all_contents(answers)):
        sample = dataset[index].evolve(image=Path())
        captions = [
            Caption(text, score, counts_rle(mask["counts"], tuple(mask["size"])), sample.image_id)
            for text, score, mask in content["captions"]
        ]
        found.append((sample, captions))
    return found


def captioning(options: ReferCaptionOptions, dataset: ReferDataset, device: str) -> Work:
    """What a worker of a cluster does."""
    captioner = captioner_of(options, device)

    def work(items: Sequence[Item], batch_size: int) -> list[Answer]:
        def compute(some: Sequence[Item]) -> list[Answer]:
            found = captioner.run(dataset, batch_size, [item.row for item in some])
            return [Answer({"captions": [_plain(caption) for caption in captions]}) for _, captions in found]

        return each_answer(compute, items)

    return work


def _plain(caption: Caption) -> list[object]:
    return [caption.text, caption.score, plain_rle(caption.mask_rle)]
