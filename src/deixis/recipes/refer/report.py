"""The end of a segmenter run: the best weights under their lasting name, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.data.refer.loading import decoded
from deixis.data.sets.subset import Subset
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.models.sa2va import Sa2vaBundle, parameter_table
from deixis.options.refer_train import ReferParts
from deixis.recipes.refer.data import facts
from deixis.recipes.refer.model import write_teacher
from deixis.recipes.refer.presence import threshold_line
from deixis.recipes.run.data import RunData
from deixis.recipes.run.report import run_facts, spread_indices
from deixis.recipes.run.training import OpenRun
from deixis.refer_records import ReferDataset, ReferSample, Segmentation
from deixis.reporting.outcome import Outcome
from deixis.reporting.refer_report import Presence, masks_row, segmenter_facts
from deixis.reporting.run_report import write_run_report

HEADLINE = ("gIoU", "cIoU", "N_acc", "T_acc", "METEOR", "NLTK METEOR", "exact")
GROUPS = {"by_tags": "by kind of phrase", "by_words": "by words", "by_sizes": "by size", "by_objects": "by objects"}
POLICY = ("behaviour", "epochs", "batch_size", "learning_rate", "lora", "lora_r", "lora_alpha", "train")


BeforeAnswers = tuple[int, ReferSample, list[Segmentation]]
"""Of an image of the report: its position, its annotations, and what the untrained model finds in it."""


def refer_pictures(segmenter: Segmenter, dataset: ReferDataset, count: int, batch_size: int) -> list[BeforeAnswers]:
    """Images spread evenly over the data that is reported on, answered by the model as it is."""
    if not count:
        return []
    chosen = spread_indices(count, len(dataset))
    answered = segmenter.run(dataset, batch_size, chosen)
    return [(index, decoded(dataset[index]), found) for index, (_, found) in zip(chosen, answered, strict=True)]


def write_segmenter_report(
    opened: OpenRun,
    bundle: Sa2vaBundle,
    data: RunData[ReferDataset],
    pictures: Sequence[BeforeAnswers],
    *,
    parts: ReferParts,
    max_tiles: int,
    teacher: Path,
    outcome: Outcome,
    seconds: float,
    took: dict[str, str],
    batch_size: int,
    page: bool,
) -> None:
    """Write the best weights to `teachers/`, and `report.html`.

    Args:
        seconds: from start to end.
        batch_size: of phrases that are drawn.
        page: whether to write the report.
        took: what else the run took, by name.
    """
    best = opened.folder / "checkpoints" / "best"
    write_teacher(parts, best, teacher)
    before, after = outcome.reported(outcome.before), outcome.reported(outcome.best)
    if not page or after is None:
        return
    device = next(bundle.model.parameters()).device
    segmenter = load_segmenter(best, device, max_tiles)
    shown = Subset(data.reported, tuple(index for index, *_ in pictures), "pictures")
    found = [answers for _, answers in segmenter.run(shown, batch_size)]
    sets = {"training": data.training, "validation": data.validation, "test": data.test}
    best_validation = outcome.best.validation
    line = threshold_line(best_validation, segmenter.threshold) if bundle.behaviour == "deixis" else ""
    task = segmenter_facts(
        {role: facts(dataset) for role, dataset in sets.items() if dataset is not None},
        None if before is None else {name: before[name] for name in HEADLINE if name in before},
        {name: after[name] for name in HEADLINE if name in after},
        {title: _groups(before, after, name) for name, title in GROUPS.items() if after.get(name)},
        presence=Presence(best_validation.get("presence_curve", {}), segmenter.threshold, line),
        pictures=[masks_row(sample, first, last) for (_, sample, first), last in zip(pictures, found, strict=True)],
    )
    run = run_facts(opened, POLICY, parameter_table(bundle.model), outcome, seconds=seconds, took=took)
    write_run_report(opened.folder / "report.html", run, task)


def _groups(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], name: str
) -> list[tuple[str, int, float | None, float]]:
    """(group, phrases, gIoU before, gIoU after) of each group."""
    earlier = {} if before is None else before.get(name, {})
    return [
        (group, values["phrases"], earlier.get(group, {}).get("gIoU"), values["gIoU"])
        for group, values in after[name].items()
    ]
