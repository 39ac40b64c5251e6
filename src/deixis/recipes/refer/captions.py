"""Metrics of the captions of a segmenter run that also learns to describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator

from deixis.data.refer.conversation import has_pixels
from deixis.evaluation.captions import evaluate_captions
from deixis.inference.refer.captioner import Captioner
from deixis.recipes.run.outputs import warn_once
from deixis.refer_records import ReferDataset
from deixis.training.processes import gather_lists

NAMES = ("CIDEr", "METEOR", "NLTK METEOR", "exact")


def caption_values(
    captioner: Captioner, dataset: ReferDataset, mine: Sequence[int], batch_size: int, accelerator: Accelerator
) -> dict[str, Any]:
    """CIDEr-D, METEOR and the share of exact captions, each process describing its share of the images.

    Args:
        mine: indices of the images of this process.

    METEOR where it can be measured, by the main process alone: each would start a Java of its own. Nothing where none
    of the images has a mask with a phrase.
    """
    with accelerator.autocast():
        found = list(zip(mine, captioner.run(dataset, batch_size, mine), strict=True))
    if accelerator.num_processes > 1:
        found = sorted(gather_lists(accelerator, found), key=lambda item: item[0])
    truth = [sample for _, (sample, _) in found]
    if not any(e.texts and has_pixels(e) for sample in truth for e in sample.expressions):
        return {}
    main = accelerator.is_main_process
    metrics = evaluate_captions(truth, [captions for _, (_, captions) in found], with_meteor=main)
    if metrics.meteor_missing:
        warn_once(metrics.meteor_missing)
    values = metrics.as_dict()
    return {name: values[name] for name in NAMES if name in values}
