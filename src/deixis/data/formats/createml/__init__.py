"""Apple's CreateML: one JSON list of images, boxes by their centre."""

from deixis.data.formats.createml.read import find_createml, read_createml
from deixis.data.formats.createml.write import write_createml
from deixis.data.formats.record import Format, Holds

CREATEML = Format(
    "createml",
    find_createml,
    read_createml,
    takes=("split", "findings"),
    write=write_createml,
    holds=Holds(all_names=False),
)
