"""COCO's panoptic annotations: a JSON file, and PNGs whose colours are the ids of segments."""

from deixis.data.formats.coco_panoptic.read import find_panoptic, read_panoptic
from deixis.data.formats.record import Format, Holds

COCO_PANOPTIC = Format(
    "coco_panoptic", find_panoptic, read_panoptic, takes=("masks", "findings"), holds=Holds(masks=True)
)
