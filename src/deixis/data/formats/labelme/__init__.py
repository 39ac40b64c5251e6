"""labelme: one JSON file per image."""

from deixis.data.formats.labelme.read import find_labelme, read_labelme
from deixis.data.formats.labelme.write import write_labelme
from deixis.data.formats.record import Format, Holds

LABELME = Format(
    "labelme",
    find_labelme,
    read_labelme,
    takes=("masks", "findings"),
    write=write_labelme,
    holds=Holds(masks=True, boxes_beside_masks=False, crowds=True),
)
