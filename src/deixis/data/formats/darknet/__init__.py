"""YOLO label files without a `data.yaml`: Darknet's `obj.data` (CVAT's YOLO 1.1), or a list of class names."""

from deixis.data.formats.darknet.read import find_darknet, read_darknet
from deixis.data.formats.darknet.write import write_darknet
from deixis.data.formats.record import Format, Holds

DARKNET = Format(
    "darknet",
    find_darknet,
    read_darknet,
    takes=("masks", "split", "findings"),
    write_parts=write_darknet,
    holds=Holds(),
    yields_to=("yolo", "coco", "csv"),
)
