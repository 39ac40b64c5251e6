"""YOLO: one text file per image, and a `data.yaml`."""

from deixis.data.formats.record import Format, Holds
from deixis.data.formats.yolo.read import find_yolo, read_yolo
from deixis.data.formats.yolo.write import write_yolo

YOLO = Format(
    "yolo",
    find_yolo,
    read_yolo,
    takes=("masks", "split", "findings"),
    write_parts=write_yolo,
    holds=Holds(masks=True, boxes_beside_masks=False),
)
