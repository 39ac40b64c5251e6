"""Tables of boxes as CSV: TensorFlow's, Kaggle's, RetinaNet's, VoTT's, AutoML's and others, one row per object."""

from deixis.data.formats.csv.read import find_csv, read_csv
from deixis.data.formats.csv.write import write_csv
from deixis.data.formats.record import Format

CSV = Format(
    "csv",
    find_csv,
    read_csv,
    takes=("split", "findings"),
    write=write_csv,
    yields_to=("voc", "yolo", "odvg", "openimages", "labelme", "parquet", "lvis", "coco"),
)
