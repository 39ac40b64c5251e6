"""Hugging Face parquet files with the pictures inside."""

from deixis.data.formats.parquet.read import find_parquet, read_parquet
from deixis.data.formats.parquet.write import write_parquet
from deixis.data.formats.record import Format, Holds

PARQUET = Format(
    "parquet",
    find_parquet,
    read_parquet,
    takes=("split", "findings"),
    write_parts=write_parquet,
    holds=Holds(areas=True, crowds=True, image_ids=True),
)
