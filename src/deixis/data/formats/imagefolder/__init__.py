"""Hugging Face's ImageFolder: pictures beside `metadata.jsonl`, `.csv` or `.parquet` with their objects."""

from deixis.data.formats.imagefolder.read import find_imagefolder, read_imagefolder
from deixis.data.formats.imagefolder.write import write_imagefolder
from deixis.data.formats.record import Format, Holds

IMAGEFOLDER = Format(
    "imagefolder",
    find_imagefolder,
    read_imagefolder,
    takes=("split", "findings"),
    write_parts=write_imagefolder,
    holds=Holds(areas=True, crowds=True, image_ids=True),
    decisive=True,
)
