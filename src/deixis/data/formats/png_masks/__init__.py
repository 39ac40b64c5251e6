"""Pictures and masks as PNG files of the same names: indices or colours of classes or of objects."""

from deixis.data.formats.png_masks.files import find_png_masks
from deixis.data.formats.png_masks.read import read_png_masks
from deixis.data.formats.record import Format, Holds

PNG_MASKS = Format(
    "png_masks",
    find_png_masks,
    read_png_masks,
    takes=("masks", "split", "findings"),
    holds=Holds(masks=True),
    yields_to=(
        "voc",
        "yolo",
        "odvg",
        "openimages",
        "labelme",
        "parquet",
        "lvis",
        "coco",
        "coco_panoptic",
        "supervisely",
    ),
)
