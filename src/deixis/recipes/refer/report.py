"""What the report of a segmenter run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deixis.data.refer.loading import decoded
from deixis.data.sets.subset import Subset
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.recipes.refer.data.facts import facts
from deixis.recipes.refer.presence import threshold_line
from deixis.recipes.run.data import RunData
from deixis.refer_records import ReferDataset, ReferSample, Segmentation
from deixis.reporting.outcome import Outcome
from deixis.reporting.refer_report import Presence, masks_row, segmenter_facts
from deixis.reporting.run_report import TaskFacts
from deixis.training.validation import spread_evenly

HEADLINE = ("gIoU", "cIoU", "N_acc", "T_acc", "METEOR", "NLTK METEOR", "exact")
GROUPS = {"by_tags": "by kind of phrase", "by_words": "by words", "by_sizes": "by size", "by_objects": "by objects"}
POLICY = ("behaviour", "epochs", "batch_size", "learning_rate", "lora", "lora_r", "lora_alpha", "train")


BeforeAnswers = tuple[int, ReferSample, list[Segmentation]]
"""Of an image of the report: its position, its annotations, and what the untrained model finds in it."""


def refer_pictures(segmenter: Segmenter, dataset: ReferDataset, count: int, batch_size: int) -> list[BeforeAnswers]:
    """Images spread evenly over the data that is reported on, answered by the model as it is."""
    if not count:
        return []
    chosen = spread_evenly(len(dataset), count)
    answered = segmenter.run(dataset, batch_size, chosen)
    return [(index, decoded(dataset[index]), found) for index, (_, found) in zip(chosen, answered, strict=True)]


def report_facts(
    outcome: Outcome,
    best: Path,
    data: RunData[ReferDataset],
    pictures: Sequence[BeforeAnswers],
    *,
    max_tiles: int,
    batch_size: int,
    device: torch.device,
) -> TaskFacts:
    """What `report.html` shows of a segmenter: data, metrics, presence threshold, pictures.

    Args:
        best: the folder of the best weights.
        batch_size: of phrases that are drawn.
    """
    before, after = outcome.reported(outcome.before), outcome.reported(outcome.best)
    assert after is not None
    segmenter = load_segmenter(best, device, max_tiles)
    shown = Subset(data.reported, tuple(index for index, *_ in pictures), "pictures")
    found = [answers for _, answers in segmenter.run(shown, batch_size)]
    sets = {"training": data.training, "validation": data.validation, "test": data.test}
    measured = outcome.best.validation
    line = threshold_line(measured, segmenter.threshold) if segmenter.bundle.behaviour == "deixis" else ""
    return segmenter_facts(
        {role: facts(dataset) for role, dataset in sets.items() if dataset is not None},
        None if before is None else {name: before[name] for name in HEADLINE if name in before},
        {name: after[name] for name in HEADLINE if name in after},
        {title: _groups(before, after, name) for name, title in GROUPS.items() if after.get(name)},
        forgetting=forgetting_rows(outcome),
        presence=Presence(measured.get("presence_curve", {}), segmenter.threshold, line),
        pictures=[masks_row(sample, first, last) for (_, sample, first), last in zip(pictures, found, strict=True)],
    )


def _groups(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], name: str
) -> list[tuple[str, int, float | None, float]]:
    """(group, phrases, gIoU before, gIoU after) of each group."""
    earlier = {} if before is None else before.get(name, {})
    return [
        (group, values["phrases"], earlier.get(group, {}).get("gIoU"), values["gIoU"])
        for group, values in after[name].items()
    ]


CHAT_LOSS, CHAT_PERPLEXITY = "chat_loss", "chat_perplexity"


def chat_figures(outcome: Outcome) -> dict[str, tuple[float | None, float, float]]:
    """Loss and perplexity on conversations: before training, of the best epoch and of the last; by name."""
    before: Mapping[str, Any] = {} if outcome.before is None else outcome.before.validation
    best, last = outcome.best.validation, outcome.last.validation
    names = (name for name in (CHAT_LOSS, CHAT_PERPLEXITY) if name in best and name in last)
    return {name: (before.get(name), best[name], last[name]) for name in names}


def forgetting_rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    """(figure, before, best epoch, last epoch) for the report: the gain in gIoU beside what conversation lost; nothing
    where no conversation was measured."""
    figures = chat_figures(outcome)
    if not figures:
        return []
    states = (outcome.before, outcome.best, outcome.last)
    masks = [None if state is None else state.validation.get("gIoU") for state in states]
    titles = {CHAT_LOSS: "loss of conversation", CHAT_PERPLEXITY: "perplexity of conversation"}
    named = {"gIoU of masks": masks, **{title: figures[name] for name, title in titles.items() if name in figures}}
    rows = []
    for name, values in named.items():
        before, best, last = ("–" if value is None else f"{value:.3f}" for value in values)
        rows.append((name, before, best, last))
    return rows


def chat_line(outcome: Outcome) -> list[str]:
    """What became of conversation, in words; nothing where it was not measured."""
    found = chat_figures(outcome).get(CHAT_PERPLEXITY)
    if found is None:
        return []
    before, best, last = found
    start = "" if before is None else f"{before:.3f} before training, "
    line = f"perplexity on conversations {start}{best:.3f} at the best epoch, {last:.3f} at the last"
    if before is not None and best > before:
        line += "; it has risen: mix conversations into --data, or lower --learning-rate"
    return [line]
