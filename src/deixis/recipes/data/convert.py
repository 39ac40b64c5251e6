"""Annotations of one format to another."""

from __future__ import annotations

from pathlib import Path

from deixis.console import print_text
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.data.sets.embedded import records
from deixis.data.sets.results import with_results
from deixis.options.annotated_data import ClassTools
from deixis.options.data_convert import DataConvertOptions
from deixis.recipes.data.chosen import chosen_alone
from deixis.records import Dataset


def convert_data(options: DataConvertOptions) -> Path | None:
    """Read, print what the target cannot hold, write. Returns what `read_dataset` reads again; None for a dry run.

    Raises:
        DataError: the data cannot be read, or the output cannot be written.
    """
    source = options.annotations or options.data
    dataset = read_dataset(source, options.images, options.format, split=options.split)
    if options.annotations:
        dataset = with_results(options.data, dataset)
    print_text(f"read {_summary(dataset)} from {options.data}")
    dataset = chosen_alone(dataset, options.group(ClassTools), print_text, options.threshold)
    lost = not_kept(dataset, options.to, options.masks)
    for line in lost:
        print_text(f"lost in {options.to}: {line}")
    if not lost:
        print_text(f"lost in {options.to}: nothing")
    if options.dry_run or options.output is None:
        return None
    written = write_dataset(dataset, options.output, options.to, options.image_files, options.masks)
    print_text(f"wrote {options.output}; read it with --data {written}")
    return written


def _summary(dataset: Dataset) -> str:
    objects = sum(len(sample.instances) for sample in records(dataset))
    return f"{len(dataset)} images, {objects} objects, {len(dataset.vocabulary)} class names"
