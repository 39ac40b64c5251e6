"""CVAT's own XML, for images and for videos."""

from deixis.data.formats.cvat.parse import find_cvat
from deixis.data.formats.cvat.read import read_cvat
from deixis.data.formats.cvat.write import write_cvat
from deixis.data.formats.record import Format, Holds

CVAT = Format(
    "cvat",
    find_cvat,
    read_cvat,
    takes=("masks", "split", "findings"),
    write=write_cvat,
    holds=Holds(masks=True, boxes_beside_masks=False),
    decisive=True,
)
