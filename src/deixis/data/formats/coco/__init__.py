"""COCO's instances JSON."""

from deixis.data.formats.coco.read import find_coco, read_coco
from deixis.data.formats.coco.write import write_coco
from deixis.data.formats.record import Format, Holds

COCO = Format(
    "coco",
    find_coco,
    read_coco,
    takes=("masks", "findings"),
    write=write_coco,
    holds=Holds(masks=True, areas=True, crowds=True, image_ids=True, category_ids=True, scores=True),
    yields_to=("odvg", "labelme", "lvis"),
)
