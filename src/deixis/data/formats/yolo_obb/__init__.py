"""YOLO with turned boxes (Ultralytics OBB): lines of a class and four corners, and a `data.yaml`."""

from deixis.data.formats.record import Format
from deixis.data.formats.yolo_obb.read import find_yolo_obb, read_yolo_obb
from deixis.data.formats.yolo_obb.write import rounded_off, write_yolo_obb

YOLO_OBB = Format(
    "yolo_obb",
    find_yolo_obb,
    read_yolo_obb,
    takes=("split", "findings"),
    write_parts=write_yolo_obb,
    also_not_kept=rounded_off,
    decisive=True,
)
