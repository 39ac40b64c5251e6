"""A data set as shards, for training on more pictures than a file system of single files can serve."""

from __future__ import annotations

from pathlib import Path

from deixis.console import print_text
from deixis.data.formats import read_dataset
from deixis.data.formats.shards import find_shards, verify_shards
from deixis.data.formats.shards.index import ShardIndex
from deixis.data.formats.shards.write import write_shards
from deixis.errors import DataError
from deixis.options.annotated_data import ClassTools
from deixis.options.data_shard import DataShardOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import chosen_alone


def shard_data(options: DataShardOptions) -> Path:
    """Write shards, or verify those of a folder. Returns the folder.

    Raises:
        DataError: the data cannot be read, the output cannot be written, or a file is damaged.
    """
    if options.verify:
        found = find_shards(Path(options.data))
        if not found:
            raise DataError(f"{options.data}: no shards.json in it; give a folder that 'deixis data shard' wrote")
        count = verify_shards(found[0].parent)
        print_text(f"{found[0].parent}: all {count} files are as written")
        return found[0].parent
    assert options.output is not None
    dataset = read_dataset(options.data, options.images, options.format, masks=False, split=options.split)
    dataset = chosen_alone(dataset, options.group(ClassTools), print_text)
    with ProgressBar("writing shards", len(dataset)) as progress:
        lost = write_shards(dataset, options.output, options.to, options.max_shard_mb, progress.one_more)
    for what, images in lost.items():
        print_text(f"lost in shards: {what} of {images} images")
    index = ShardIndex(options.output)
    megabytes = sum(shard.bytes for shard in index.manifest.shards) / 1e6
    count = len(index.manifest.shards)
    print_text(f"{len(index)} images in {count} shard{'s' if count > 1 else ''}, {megabytes:.1f} MB")
    print_text(f"wrote {options.output}; read it with --data {options.output}")
    return options.output
