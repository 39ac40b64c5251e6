"""Hugging Face's ImageFolder: pictures beside `metadata.jsonl`, `.csv` or `.parquet` with their objects."""

from deixis.data.formats.imagefolder.read import find_imagefolder, read_imagefolder
from deixis.data.formats.record import Format

IMAGEFOLDER = Format("imagefolder", find_imagefolder, read_imagefolder, takes=("split", "findings"), decisive=True)
