"""Supervisely: a project folder with `meta.json`, and data sets of `ann` and `img`."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.supervisely.read import find_supervisely, read_supervisely

SUPERVISELY = Format(
    "supervisely", find_supervisely, read_supervisely, takes=("masks", "split", "findings"), holds=Holds(masks=True)
)
