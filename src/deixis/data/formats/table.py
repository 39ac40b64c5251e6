"""The formats of annotations for detection, in the order in which they are recognised."""

from __future__ import annotations

from deixis.data.formats.coco import COCO
from deixis.data.formats.coco_panoptic import COCO_PANOPTIC
from deixis.data.formats.createml import CREATEML
from deixis.data.formats.csv import CSV
from deixis.data.formats.cvat import CVAT
from deixis.data.formats.darknet import DARKNET
from deixis.data.formats.datumaro import DATUMARO
from deixis.data.formats.fiftyone import FIFTYONE
from deixis.data.formats.imagefolder import IMAGEFOLDER
from deixis.data.formats.label_studio import LABEL_STUDIO
from deixis.data.formats.labelme import LABELME
from deixis.data.formats.lvis import LVIS
from deixis.data.formats.odvg import ODVG
from deixis.data.formats.openimages import OPENIMAGES
from deixis.data.formats.parquet import PARQUET
from deixis.data.formats.png_masks import PNG_MASKS
from deixis.data.formats.predictions import PREDICTIONS
from deixis.data.formats.record import Format
from deixis.data.formats.review import REVIEW
from deixis.data.formats.shards import SHARDS
from deixis.data.formats.supervisely import SUPERVISELY
from deixis.data.formats.via import VIA
from deixis.data.formats.voc import VOC
from deixis.data.formats.yolo import YOLO
from deixis.data.formats.yolo_obb import YOLO_OBB

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        VOC,
        YOLO_OBB,  # before YOLO, whose files it has too
        YOLO,
        IMAGEFOLDER,  # before ODVG and parquet, whose kinds of files it has too
        ODVG,
        VIA,
        CREATEML,
        SUPERVISELY,
        REVIEW,
        PREDICTIONS,
        CSV,  # before Open Images, which takes any CSV file that no tool is known for
        OPENIMAGES,
        LABELME,
        SHARDS,
        PARQUET,
        CVAT,
        DARKNET,
        LABEL_STUDIO,
        FIFTYONE,
        DATUMARO,
        PNG_MASKS,
        COCO_PANOPTIC,
        LVIS,  # before COCO, whose keys it has too
        COCO,  # last: takes any JSON file that no tool is known for, so that the error names its missing keys
    )
}
WRITTEN = {name: format for name, format in FORMATS.items() if format.writes}
