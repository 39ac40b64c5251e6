"""`deixis refer cycle --engine ray`: the same lines from many workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from deixis.inference.outputs.captions import image_name
from deixis.inference.outputs.cycle import CycleLines, cycle_entry
from deixis.inference.refer.cycle import Cycle
from deixis.models.sa2va import Sa2vaBundle, load_sa2va
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.used_models import Engine
from deixis.recipes.engine.items import Item, dataset_items
from deixis.recipes.engine.parts import Answer
from deixis.recipes.engine.ray_run import Work, all_contents, each_answer, ray_answers
from deixis.refer_records import ReferDataset


def cycle_of(options: ReferCycleOptions, bundle: Sa2vaBundle, device: str | torch.device) -> Cycle:
    """The cycle that the options ask for."""
    return Cycle(
        bundle,
        device,
        options.max_tiles,
        max_new_tokens=options.max_new_tokens,
        candidates=options.candidates,
        seed=options.seed,
        direct=True,
    )


def add_ray_lines(options: ReferCycleOptions, dataset: ReferDataset, lines: CycleLines, *, done: int) -> None:
    """The lines of the images that are not done, in order.

    Raises:
        DataError: an image cannot be read; errors.parquet has all of them.
    """
    answers = ray_answers(
        partial(cycling, options, dataset),
        dataset_items(options.masks, len(dataset)),
        options.group(Engine),
        output=options.output,
        made_by=lines.made_by,
        model=options.model,
        batch_size=options.batch_size,
    )
    for index, content in enumerate(all_contents(answers)):
        if index >= done:
            lines.append({**content, "image": image_name(dataset[index], options.output, index)})


def cycling(options: ReferCycleOptions, dataset: ReferDataset, device: str) -> Work:
    """What a worker of a cluster does."""
    cycle = cycle_of(options, load_sa2va(options.model, tokenizer=options.tokenizer), device)

    def work(items: Sequence[Item], batch_size: int) -> list[Answer]:
        def compute(some: Sequence[Item]) -> list[Answer]:
            found = cycle.run(dataset, batch_size, [item.row for item in some])
            return [Answer(cycle_entry(sample, "", cycled)) for sample, cycled in found]

        return each_answer(compute, items)

    return work
