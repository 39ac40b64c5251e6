"""LVIS: COCO's JSON with what each image was searched for."""

from deixis.data.formats.lvis.read import find_lvis, read_lvis
from deixis.data.formats.lvis.write import write_lvis
from deixis.data.formats.record import Format, Holds

LVIS = Format(
    "lvis",
    find_lvis,
    read_lvis,
    takes=("masks", "findings"),
    write=write_lvis,
    holds=Holds(
        masks=True,
        areas=True,
        image_ids=True,
        category_ids=True,
        absent=True,
        not_exhaustive=True,
        underscores=False,
        scores=True,
    ),
    yields_to=("odvg", "labelme"),
)
