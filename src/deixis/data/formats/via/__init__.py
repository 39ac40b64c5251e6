"""VGG Image Annotator: projects and annotation files of versions 1 to 3."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.via.read import find_via, read_via
from deixis.data.formats.via.write import write_via

VIA = Format(
    "via",
    find_via,
    read_via,
    takes=("masks", "findings"),
    write=write_via,
    holds=Holds(masks=True, boxes_beside_masks=False),
)
