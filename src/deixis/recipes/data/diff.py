"""What changed between two versions of annotations, as text, JSON and a page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from deixis.console import Console, print_text
from deixis.data.formats import read_dataset
from deixis.data.pixels.images import load
from deixis.data.sets.difference import KINDS, Difference, ImagePair, class_changes, difference, image_name, renamings
from deixis.data.sets.embedded import record_of
from deixis.options.data_diff import DataDiffOptions
from deixis.recipes.data.chosen import image_folders
from deixis.recipes.run.owned_output import require_own_file
from deixis.records import Dataset, Sample
from deixis.reporting.dataset_page import write_difference_page
from deixis.reporting.page import Cell, is_our_page
from deixis.reporting.pictures import Picture, drawn

COLUMNS = ("before", "after", "added", "gone", "moved", "renamed from", "renamed to")


def diff_data(options: DataDiffOptions) -> int:
    """Compare, print, write the page. Returns the exit code: 1 where the two differ, else 0.

    Raises:
        DataError: one of them cannot be read, or the page cannot be written.
    """
    # Before the data is read, which may take long.
    if options.output is not None:
        require_own_file(options.output, is_our_page)
    before, after = (
        read_dataset(data, images, options.format)
        for data, images in zip(options.data, image_folders(options.images, 2), strict=True)
    )
    found = difference(before, after)
    classes = class_changes(before, after, found)
    renamed = renamings(before, after, found)
    if options.json:
        print_text(as_json(options, before, after, found))
    else:
        _print(options, before, after, found, classes, renamed)
    if options.output is not None:
        changed = [pair for pair in found.pairs if pair.changes]
        pictures = [p for pair in changed[: options.pictures] for p in _pictures(before, after, pair)]
        rows: list[list[Cell]] = [[name, *(counts[column] for column in COLUMNS)] for name, counts in classes.items()]
        titles = [f"{options.data[0]} and {options.data[1]}", *COLUMNS]
        write_difference_page(options.output, titles, _totals(found), rows, pictures, len(changed))
        if not options.json:
            print_text(f"page: {options.output}")
    return 0 if found.is_empty else 1


def as_json(options: DataDiffOptions, before: Dataset, after: Dataset, found: Difference) -> str:
    """Everything as one JSON object."""
    images = []
    for pair in found.pairs:
        old, new = record_of(before, pair.before), record_of(after, pair.after)
        rows: list[dict[str, Any]] = [
            {"kind": change.kind, "before": _object(old, change.before), "after": _object(new, change.after)}
            for change in pair.changes
        ]
        if rows:
            images.append({"image": image_name(new), "changes": rows})
    content = {
        "before": options.data[0],
        "after": options.data[1],
        "counts": _totals(found),
        "images_added": [image_name(record_of(after, i)) for i in found.added],
        "images_gone": [image_name(record_of(before, i)) for i in found.gone],
        "classes": {
            name: {column.replace(" ", "_"): counts[column] for column in COLUMNS}
            for name, counts in class_changes(before, after, found).items()
        },
        "renamed": [
            {"from": old, "to": new, "objects": count}
            for (old, new), count in renamings(before, after, found).most_common()
        ],
        "images": images,
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def _object(sample: Sample, index: int | None) -> dict[str, Any] | None:
    if index is None:
        return None
    name = sample.vocabulary.names[int(sample.instances.class_ids[index])]
    return {"label": name, "box_xyxy_px": [round(v, 2) for v in sample.instances.boxes_xyxy_px[index].tolist()]}


def _totals(found: Difference) -> dict[str, int]:
    counts = Counter(change.kind for pair in found.pairs for change in pair.changes)
    return {
        "images in both": len(found.pairs),
        "images changed": sum(bool(pair.changes) for pair in found.pairs),
        "images added": len(found.added),
        "images gone": len(found.gone),
        **{f"objects {kind}": counts[kind] for kind in KINDS},
    }


def _print(
    options: DataDiffOptions,
    before: Dataset,
    after: Dataset,
    found: Difference,
    classes: dict[str, Counter[str]],
    renamed: Counter[tuple[str, str]],
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{count} {what}" for what, count in _totals(found).items()), markup=False)
    for title, positions, dataset in (("added", found.added, after), ("gone", found.gone, before)):
        names = [image_name(record_of(dataset, position)) for position in positions]
        for name in names[: options.show or None]:
            console.print(f"image {title}: {name}", markup=False)
        if options.show and len(names) > options.show:
            console.print(f"… and {len(names) - options.show} more images {title} (--show 0 lists all)", markup=False)
    changed = [pair for pair in found.pairs if pair.changes]
    for pair in changed[: options.show or None]:
        console.print(f"{image_name(record_of(after, pair.after))}: {_summary(pair)}", markup=False)
    if options.show and len(changed) > options.show:
        console.print(f"… and {len(changed) - options.show} more changed images (--show 0 lists all)", markup=False)
    for (old, new), count in renamed.most_common():
        console.print(f"renamed from {old!r} to {new!r}: {count} objects", markup=False)
    table = Table("class", *COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in classes.items():
        if any(counts[column] for column in COLUMNS):
            table.add_row(name, *(str(counts[column] or "") for column in COLUMNS))
    console.print(table)


def _summary(pair: ImagePair) -> str:
    counts = Counter(change.kind for change in pair.changes)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def _pictures(before: Dataset, after: Dataset, pair: ImagePair) -> list[Picture]:
    """The image with the objects that changed, as they were and as they are."""
    pictures = []
    for title, dataset, position, key in (
        ("before", before, pair.before, "before"),
        ("after", after, pair.after, "after"),
    ):
        sample = load(dataset[position])
        assert isinstance(sample.image, np.ndarray)
        rows = [row for change in pair.changes if (row := getattr(change, key)) is not None]
        chosen = replace(sample, instances=sample.instances.select(np.array(rows, np.int64)))
        pictures.append(
            drawn(f"{image_name(record_of(dataset, position))}, {title}: {_summary(pair)}", sample.image, chosen)
        )
    return pictures
