"""Split a data set into parts that share no image and no near copy."""

from __future__ import annotations

from rich.table import Table

from deixis.console import Console
from deixis.data.checks.classes import count_objects
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.writing import not_kept, write_parts
from deixis.data.sets.embedded import records
from deixis.data.sets.split import duplicate_groups, split_stratified
from deixis.data.sets.subset import Subset
from deixis.options.annotated_data import ClassTools
from deixis.options.data_split import DataSplitOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import chosen_alone
from deixis.records import Dataset

PARTS = ("train", "val", "test")


def split_data(options: DataSplitOptions) -> dict[str, str]:
    """Split and write. Returns, for each part, what `read_dataset` reads again.

    Raises:
        DataError: the data cannot be read or split, or the output cannot be written.
    """
    assert options.output is not None
    console = Console(highlight=False, soft_wrap=True)
    dataset = read_dataset(options.data, options.images, options.format, split=options.split)
    dataset = chosen_alone(dataset, options.group(ClassTools), lambda line: console.print(line, markup=False))
    found = format_of(options.data, options.format)
    format = options.to or ("coco" if found == "scenes" else found)
    with ProgressBar("looking for copies", len(dataset)) as progress:
        groups = duplicate_groups(dataset, options.num_workers, progress.one_more)
    positions = split_stratified(dataset, options.fractions, options.seed, groups)
    name = str(getattr(dataset, "name", "data"))
    parts: dict[str, Dataset] = {
        part: Subset(dataset, indices, f"{name} ({part})") for part, indices in zip(PARTS, positions, strict=False)
    }
    copies = sum(len(group) for group in groups if len(group) > 1)
    console.print(f"{len(dataset)} images in {len(groups)} groups; {copies} have a copy or near copy", markup=False)
    for line in not_kept(dataset, format):
        console.print(f"lost in {format}: {line}", markup=False)
    written = write_parts(parts, options.output, format, options.image_files)
    console.print(_table(parts))
    for part, place in written.items():
        console.print(f"{part}: --data {place}", markup=False)
    return written


def _table(parts: dict[str, Dataset]) -> Table:
    """Objects by part and class."""
    table = Table("class", *parts)
    for column in table.columns[1:]:
        column.justify = "right"
    counts = {part: count_objects(records(dataset)) for part, dataset in parts.items()}
    table.add_row("images", *(str(len(dataset)) for dataset in parts.values()))
    for name in next(iter(parts.values())).vocabulary.names:
        if any(count[name] for count in counts.values()):
            table.add_row(name, *(str(count[name]) for count in counts.values()))
    return table
