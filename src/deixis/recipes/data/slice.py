"""Large images cut into windows for training."""

from __future__ import annotations

from pathlib import Path

from deixis.console import print_text
from deixis.data.detect.sliced import Sliced
from deixis.data.formats import read_dataset
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.data.sets.embedded import records
from deixis.options.annotated_data import ClassTools
from deixis.options.data_slice import DataSliceOptions
from deixis.recipes.data.chosen import chosen_alone


def slice_data(options: DataSliceOptions) -> Path:
    """Cut, print what the format cannot hold, write. Returns what `read_dataset` reads again.

    Raises:
        DataError: the data cannot be read, or the output cannot be written.
    """
    assert options.output is not None
    dataset = read_dataset(options.data, options.images, options.format, split=options.split)
    dataset = chosen_alone(dataset, options.group(ClassTools), print_text)
    sliced = Sliced(dataset, options.slice, options.overlap, options.min_visible, options.whole)
    for line in not_kept(sliced, options.to):
        print_text(f"lost in {options.to}: {line}")
    written = write_dataset(sliced, options.output, options.to)
    before, after = (sum(len(one.instances) for one in records(data)) for data in (dataset, sliced))
    print_text(f"{len(dataset)} images with {before} objects became {len(sliced)} images with {after}")
    print_text(f"wrote {options.output}; read it with --data {written}")
    return written
