"""A data set in numbers and pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
from rich.table import Table

from deixis.console import Console
from deixis.data.formats import read_dataset
from deixis.data.pixels.images import load
from deixis.data.sets.embedded import EmbeddedDataset, records
from deixis.data.sets.subset import Subset
from deixis.options.data_stats import DataStatsOptions
from deixis.recipes.run.owned_output import require_own_file
from deixis.records import Dataset, Sample, SampleList
from deixis.reporting.data import DatasetFacts, dataset_facts
from deixis.reporting.dataset_page import Spreads, write_dataset_page
from deixis.reporting.page import is_our_page


def describe_data(options: DataStatsOptions) -> DatasetFacts:
    """Count, print a table, write the page.

    Raises:
        DataError: the data cannot be read, or the page cannot be written.
    """
    if options.output is not None:
        require_own_file(options.output, is_our_page)
    dataset = read_dataset(options.data, options.images, options.format, split=options.split)
    counted: Dataset = dataset
    if isinstance(dataset, EmbeddedDataset):  # so that no picture is decoded to be counted
        counted = SampleList(tuple(dataset.records), dataset.vocabulary, dataset.name)
    facts, spreads = dataset_facts(counted), _spreads(dataset)
    console = Console(highlight=False, soft_wrap=True)
    _print(console, facts, options.show)
    if options.output is not None:
        chosen = Subset(dataset, _chosen(dataset, options.pictures), "pictures")
        pictures = (load(chosen[index]) for index in range(len(chosen)))
        write_dataset_page(options.output, facts, spreads, pictures)
        console.print(f"page: {options.output}", markup=False)
    return facts


def _spreads(dataset: Dataset) -> Spreads:
    per_image, sides, aspects, image_aspects = [], [], [], []
    for sample in records(dataset):
        objects = sample.instances.select(~sample.instances.is_crowd)
        wh = objects.boxes_xyxy_px[:, 2:] - objects.boxes_xyxy_px[:, :2]
        per_image.append(len(objects))
        # The side of a square of the same area, as a share of that of the image.
        sides.append(np.sqrt(wh.prod(1)) / np.sqrt(sample.size_hw[0] * sample.size_hw[1]))
        aspects.append(wh[:, 0] / np.maximum(wh[:, 1], 1e-9))
        image_aspects.append(sample.size_hw[1] / sample.size_hw[0])
    return Spreads(
        np.array(per_image, np.float64),
        np.concatenate([*sides, np.zeros(0)]),
        np.concatenate([*aspects, np.zeros(0)]),
        np.array(image_aspects, np.float64),
    )


def _chosen(dataset: Dataset, count: int) -> tuple[int, ...]:
    """Positions of pictures, each showing the classes that those before it show least."""
    names = [_names(sample) for sample in records(dataset)]
    shown: Counter[str] = Counter()
    left = list(range(len(names)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        # A class counts half once it is shown, a quarter after the second picture, and so on.
        best = max(left, key=lambda index: (sum(0.5 ** shown[name] for name in names[index]), -index))
        left.remove(best)
        chosen.append(best)
        shown.update(names[best])
    return tuple(sorted(chosen))


def _names(sample: Sample) -> set[str]:
    return {sample.vocabulary.names[c] for c in sample.present_class_ids}


def _print(console: Console, facts: DatasetFacts, show: int) -> None:
    table = Table(facts.name, "", show_header=True)
    table.columns[1].justify = "right"
    for name, values in facts.rows().items():
        table.add_row(name, " / ".join(map(str, values)))
    table.add_row("class names", str(len(facts.boxes_per_class)))
    console.print(table)
    classes = Table("class", "objects")
    classes.columns[1].justify = "right"
    ordered = sorted(facts.boxes_per_class.items(), key=lambda item: -item[1])
    for name, count in ordered[: show or None]:
        classes.add_row(name, str(count))
    if show and len(ordered) > show:
        classes.add_row(f"… {len(ordered) - show} more", str(sum(count for _, count in ordered[show:])))
    console.print(classes)
