"""Several data sets become one."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from deixis.console import print_text
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.table import FORMATS, WRITTEN
from deixis.data.formats.writing import not_kept, write_dataset, write_parts
from deixis.data.sets.class_names import name_conflicts
from deixis.data.sets.embedded import record_of, records
from deixis.data.sets.mixing import Joined, joint_vocabulary
from deixis.data.sets.split import image_hashes
from deixis.data.sets.subset import Subset
from deixis.errors import NoSuchSplitError, OptionError
from deixis.options.annotated_data import ClassTools
from deixis.options.data_merge import DataMergeOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import EVERYTHING, chosen, image_folders, used_names
from deixis.records import Dataset
from deixis.text import listed

PARTS = ("train", "val", "test")
_NAMED, _SHOWN = 5, 20


def merge_data(options: DataMergeOptions) -> dict[str, str]:
    """Merge and write. Returns, for each part, what `read_dataset` reads again.

    Raises:
        DataError: the data cannot be read, or the output cannot be written.
        OptionError: names that may be one class, and nobody to ask.
    """
    assert options.output is not None
    places = zip(options.data, image_folders(options.images, len(options.data)), strict=True)
    sets = [_by_split(data, images, options.format) for data, images in places]
    parts: dict[str, list[Dataset]] = defaultdict(list)
    for data, found in zip(options.data, sets, strict=True):
        for name, dataset in found.items():
            print_text(f"read {len(dataset)} images{f' of {name}' if len(found) > 1 else ''} from {data}")
            parts[name].append(dataset)
    everything = [dataset for found in parts.values() for dataset in found]
    tools = _settled(options, everything)
    used = used_names(everything, tools)
    chosen_parts = {name: [chosen(one, EVERYTHING, used, print_text) for one in found] for name, found in parts.items()}
    vocabulary, moved = joint_vocabulary([one for found in chosen_parts.values() for one in found])
    if moved:
        print_text(f"category ids that change: {listed(moved, _NAMED)}")
    kept = _without_copies(chosen_parts, options)
    format = options.to or _first_written(options)
    whole = Joined([one for found in kept.values() for one in found], vocabulary=vocabulary, numbered=True)
    for line in not_kept(whole, format):
        print_text(f"lost in {format}: {line}")
    merged: dict[str, Dataset] = {
        name: Joined(found, vocabulary=vocabulary, numbered=True)
        for name, found in kept.items()
        if any(map(len, found))
    }
    if len(merged) == 1:
        (only,) = merged.values()
        written = {"": str(write_dataset(only, options.output, format, options.image_files))}
    else:
        written = write_parts(merged, options.output, format, options.image_files)
    print_text(f"{len(whole)} images, {len(vocabulary)} classes: {listed(vocabulary.names, _SHOWN)}")
    for part, place in written.items():
        print_text(f"{part or 'merged'}: --data {place}")
    return written


def _by_split(data: str, images: Path | None, format: str | None) -> dict[str, Dataset]:
    """A data set by its splits; as training data where it has one or none, or one is named."""
    known = FORMATS.get(format_of(data, format))
    if known is None or "split" not in known.takes or ("#" in data and not Path(data).exists()):
        return {PARTS[0]: read_dataset(data, images, format)}
    found: dict[str, Dataset] = {}
    for part in PARTS:
        with suppress(NoSuchSplitError):
            found[part] = read_dataset(data, images, format, split=part)
    # YOLO's files name a set's only images twice, as Ultralytics needs them for `val` too.
    different = {tuple((one.image, one.source) for one in records(found[part])): part for part in reversed(found)}
    found = {part: found[part] for part in PARTS if part in different.values()}
    return found if len(found) > 1 else {PARTS[0]: read_dataset(data, images, format)}


def _settled(options: DataMergeOptions, sets: Sequence[Dataset]) -> ClassTools:
    """What becomes of names, after those that may be one class were asked about.

    Raises:
        OptionError: there are some, and nobody to ask.
    """
    tools = ClassTools(rename=options.rename, merge=options.merge)
    if options.names == "separate":
        return tools
    used = used_names(sets, tools)
    after = [tuple(dict.fromkeys((used or {}).get(n, n) for n in one.vocabulary.names)) for one in sets]
    given = {name for pair in (used or {}).items() if pair[0] != pair[1] for name in pair}  # the user has decided
    conflicts = [group for group in name_conflicts(after) if not set(group) <= given]
    asked = options.names == "ask" and sys.stdin.isatty() and sys.stdout.isatty()
    if conflicts and options.names == "ask" and not asked:
        shown = "; ".join(" and ".join(map(repr, group)) for group in conflicts[:_NAMED])
        more = f"; and {len(conflicts) - _NAMED} more" if len(conflicts) > _NAMED else ""
        example = ",".join(conflicts[0])
        raise OptionError(
            f"names that may be one class: {shown}{more}; decide with --merge {example}={conflicts[0][0]}, or for all "
            "of them with --names merge or --names separate"
        )
    merged = [f"{','.join(group)}={group[0]}" for group in conflicts if not asked or _is_one(group)]
    return replace(tools, merge=(*tools.merge, *merged))


def _is_one(group: Sequence[str]) -> bool:
    """Ask whether names are one class."""
    print_text(f"{' and '.join(map(repr, group))}: one class, {group[0]!r}? [y/n]")
    return input().strip().lower() in ("y", "yes", "")


def _without_copies(parts: dict[str, list[Dataset]], options: DataMergeOptions) -> dict[str, list[Dataset]]:
    """The data sets without the images that an earlier one has, if asked; copies are reported in any case."""
    places = [(part, number) for part, sets in parts.items() for number in range(len(sets))]
    owners = [(place, index) for place in places for index in range(len(parts[place[0]][place[1]]))]
    joined = Joined([parts[part][number] for part, number in places])
    with ProgressBar("looking for copies", len(owners)) as progress:
        hashes = image_hashes(joined, options.num_workers, progress.one_more)
    first: dict[bytes, int] = {}
    copies = []
    for row, hashed in enumerate(hashes):
        original = first.setdefault(hashed.digest, row)
        # Copies within one data set stay: `deixis data check` is for them.
        if owners[original][0] != owners[row][0]:
            copies.append((original, row))
    if not copies:
        return parts
    shown = [f"{_image_name(joined, row)} ({_image_name(joined, original)})" for original, row in copies]
    what = "left out, the first stay with their objects" if options.duplicates == "first" else "kept twice"
    print_text(f"{len(copies)} images of a data set are also in one before it, {what}: {listed(shown, _NAMED)}")
    if options.duplicates == "keep":
        print_text("--duplicates first leaves them out")
        return parts
    gone = {owners[row] for _, row in copies}
    return {
        part: [
            Subset(one, tuple(i for i in range(len(one)) if ((part, number), i) not in gone), _name(one))
            for number, one in enumerate(found)
        ]
        for part, found in parts.items()
    }


def _name(dataset: Dataset) -> str:
    return str(getattr(dataset, "name", "data"))


def _image_name(dataset: Dataset, index: int) -> str:
    sample = record_of(dataset, index)
    return sample.image.name if isinstance(sample.image, Path) else sample.source


def _first_written(options: DataMergeOptions) -> str:
    """The format of the first data set, or COCO where that is not written."""
    name = format_of(options.data[0], options.format)
    return name if name in WRITTEN else "coco"
