"""Shards: parquet files or WebDataset tars with the pictures inside, and an index that finds each of them."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shards.read import find_shards, read_shards

SHARDS = Format(
    "shards",
    find_shards,
    read_shards,
    holds=Holds(areas=True, crowds=True, image_ids=True, category_ids=True, absent=True, not_exhaustive=True),
    decisive=True,  # the parquet files beside it are its own
)
