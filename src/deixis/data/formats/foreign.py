"""Annotations of other tools that are not read: recognised and named, with the way to a format that is."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from deixis.data.pixels.image_files import is_left_by_macos, kind_of_file
from deixis.data.reading import require_regular
from deixis.errors import DataError

_HEAD_CHARS = 20_000
_MAX_PARSED = 100_000_000  # bytes of a JSON file that are parsed to name it
_COCO = "export it as COCO"
_CONVERT = "convert it to COCO's JSON (images, annotations, categories)"
_BY_SUFFIX = {
    ".tfrecord": f"a TFRecord file; {_CONVERT}",
    ".record": f"a TFRecord file; {_CONVERT}",
    ".mat": f"a MATLAB file; {_CONVERT}",
    ".h5": f"an HDF5 file; {_CONVERT}",
    ".pkl": f"a pickle, which is a program and not read; {_CONVERT}",
    ".geojson": f"a GeoJSON file, in coordinates of the earth; {_CONVERT}, in pixels",
    ".vott": f"a VoTT project; {_COCO}, or as Pascal VOC",
    ".manifest": f"a manifest of SageMaker Ground Truth; {_CONVERT}",
}


def foreign_file(file: Path) -> str | None:
    """What an annotation file of another tool is, and what to do with it; None where it is none that is known.

    >>> foreign_file(Path("boxes.tfrecord"))
    "a TFRecord file; convert it to COCO's JSON (images, annotations, categories)"
    """
    suffix = file.suffix.lower()
    readers: dict[str, Callable[[Path], str | None]] = {
        ".json": _json,
        ".jsonl": _lines,
        ".ndjson": _lines,
        ".odgt": _lines,
        ".xml": _xml,
        ".csv": _csv,
        ".txt": _text,
        ".yaml": _settings,
        ".yml": _settings,
    }
    try:
        require_regular(file)
        found = readers[suffix](file) if suffix in readers else None
    except (OSError, ValueError, RecursionError, csv.Error, ElementTree.ParseError, LookupError, DataError):
        found = None
    # The surest first: what a parser saw, then the first bytes, then the suffix.
    return found or kind_of_file(file) or _BY_SUFFIX.get(suffix)


def foreign_folder(folder: Path) -> str | None:
    """The first file of a folder, or a folder or two below, that another tool wrote, as `FILE: is …`."""
    # Enough to name the tool, and quick in folders of many pictures.
    files = [file for depth in ("*", "*/*", "*/*/*") for file in sorted(folder.glob(depth))[:200]]
    likely = [file for file in files if file.is_file() and not is_left_by_macos(file) and file.name[0] != "."]
    found = next(filter(None, map(_named, (file for file in likely if file.suffix.lower() not in _PICTURES))), None)
    return found or _masks(folder)


_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".heic", ".mp4", ".md"}


def _named(file: Path) -> str | None:
    what = foreign_file(file)
    return None if what is None else f"{file}: is {what}"


def _head(file: Path) -> str:
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        return text.read(_HEAD_CHARS)


def _json(file: Path) -> str | None:
    if file.stat().st_size > _MAX_PARSED:
        return None
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    return _json_list(content) if isinstance(content, list) else _json_object(content)


def _json_object(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    keys = content.keys()
    tests: list[tuple[bool, str]] = [
        (
            _any(content.get("classes"), "title"),
            "the meta.json of a Supervisely project; give the project's folder, with ann and img in it",
        ),
        ({"imgHeight", "objects"} <= keys, f"a Cityscapes annotation; {_CONVERT}"),
        ({"item", "annotations"} <= keys or ("dataset" in keys and "image" in keys), f"a V7 Darwin file; {_COCO}"),
        ({"metadata", "instances"} <= keys, f"a SuperAnnotate file; {_COCO}"),
        (bool(keys & {"openlabel", "vcd"}), f"an OpenLABEL file; {_CONVERT}"),
        (bool(keys & {"label_hash", "data_units"}), f"an Encord export; {_COCO}"),
        ("captures" in keys, f"a capture of Unity's Perception package; {_CONVERT}"),
        ({"datasetId", "annotations"} <= keys, f"a Dataloop item; {_COCO}"),
        ({"asset", "regions"} <= keys or {"assets", "tags"} <= keys, f"a VoTT file; {_COCO}, or as Pascal VOC"),
        ("frames" in keys, f"a list of frames, as Scalabel (BDD100K) writes; {_COCO}"),
        (content.get("type") == "FeatureCollection", _BY_SUFFIX[".geojson"]),
        ({"names", "train"} <= keys, "the settings of a YOLO set as JSON; write them as data.yaml"),
    ]
    return next((what for fits, what in tests if fits), None)


def _json_list(content: list[Any]) -> str | None:
    rows = [row for row in content[:20] if isinstance(row, dict)]
    if not rows:
        return None
    keys = set().union(*rows)
    tests: list[tuple[bool, str]] = [
        (
            {"image_id", "category_id", "score"} <= keys,
            "COCO results (detections); give the annotations, or convert them with --annotations",
        ),
        ({"image_id", "category_id", "bbox"} <= keys, "a list of COCO annotations alone; give the whole file"),
        ("Labeled Data" in keys or "data_row" in keys, f"a Labelbox export; {_CONVERT}"),
        ({"name", "labels"} <= keys, f"Scalabel's (BDD100K's) JSON; {_CONVERT}"),
        ("jsonResponse" in keys, f"a Kili export; {_COCO}"),
        (bool(keys & {"label_hash", "data_hash"}), f"an Encord export; {_COCO}"),
        ({"task_id", "response"} <= keys, f"a Scale AI export; {_CONVERT}"),
        (any(_any(row.get("regions"), "tagName") for row in rows), f"an Azure Custom Vision file; {_CONVERT}"),
        (any(_any(row.get("instances"), "className") for row in rows), f"a SuperAnnotate file; {_COCO}"),
        ({"token", "bbox"} <= keys or "sample_data_token" in keys, f"a table of nuImages or nuScenes; {_CONVERT}"),
        ("spans" in keys and "image" in keys, f"a Prodigy export; {_CONVERT}"),
        ({"image", "text"} <= keys or {"image", "expressions"} <= keys, "data with phrases; give it to 'deixis refer'"),
    ]
    return next((what for fits, what in tests if fits), None)


def _any(rows: Any, key: str) -> bool:
    return isinstance(rows, list) and any(isinstance(row, dict) and key in row for row in rows[:20])


def _lines(file: Path) -> str | None:
    row = json.loads(_head(file).splitlines()[0])
    if not isinstance(row, dict):
        return None
    if "file_name" in row or any(key.endswith("_file_name") for key in row):
        return (
            "metadata of a Hugging Face ImageFolder without objects (bbox and categories per file_name); add them, or "
            "give other annotations"
        )
    if "source-ref" in row:
        return _BY_SUFFIX[".manifest"]
    if "data_row" in row:
        return f"a Labelbox export; {_CONVERT}"
    if "image_url" in row and "label" in row:
        return f"JSON lines of Azure Machine Learning; {_CONVERT}"
    if "gtboxes" in row:
        return f"an .odgt file, as CrowdHuman has; {_CONVERT}"
    if "spans" in row and "image" in row:
        return f"a Prodigy export; {_CONVERT}"
    if {"image", "suffix"} <= row.keys():
        return f"JSON lines of PaliGemma or Florence-2; {_CONVERT}"
    return None


def _xml(file: Path) -> str | None:
    # The root only, as files may be large, or broken further on.
    for _, node in ElementTree.iterparse(file, ["start"]):
        root = node.tag
        break
    head = _head(file)
    if root == "dataset" and "<box " in head:
        return f"an XML file of dlib's imglab; {_CONVERT}"
    # LabelMe's root is called as VOC's, and VOC has <bndbox>.
    if root == "annotation" and "<polygon>" in head and "<bndbox>" not in head and "<pt>" in head:
        return f"an XML file of the LabelMe web tool; {_CONVERT}"
    return None


def _csv(file: Path) -> str | None:
    rows = list(csv.reader(_head(file).splitlines()))
    columns = [column.strip() for column in rows[0]] if rows else []
    lower = {column.lower() for column in columns}
    corners = {"xmin", "ymin", "xmax", "ymax"}
    if {"imageid", "labelname"} <= lower and corners <= lower:
        return None  # Open Images
    shown = ", ".join(columns)[:120]
    if lower & {"bbox", "bbox_x", "xmin", "x_min", "x1", "boxes", "predictionstring", "encodedpixels"}:
        return f"a CSV of objects that no known format has (columns {shown}); {_CONVERT}"
    return None


def _text(file: Path) -> str | None:
    lines = _head(file).splitlines()[:4]
    fields = [line.split() for line in lines if line.strip()]
    if not fields:
        return None
    # A type, 14 numbers, and in results a score.
    if len(fields[0]) in (15, 16) and not _numeric(fields[0][:1]) and _numeric(fields[0][1:15]):
        return f"a KITTI label file; {_CONVERT}"
    # Four corners, a class and whether it is difficult; two lines of facts may stand before.
    if lines[0].startswith(("imagesource:", "gsd:")) or (
        len(fields[0]) in (9, 10) and _numeric(fields[0][:8]) and not _numeric(fields[0][8:9])
    ):
        return f"a DOTA label file; {_CONVERT}"
    # A picture's name, the count of its faces, then a line for each face.
    if len(fields) > 2 and lines[0].lower().endswith((".jpg", ".png")) and _numeric(fields[1]) and len(fields[1]) == 1:
        return f"a WIDER FACE list; {_CONVERT}"
    if len(fields[0]) == 5 and fields[0][0].isdecimal() and _shares(fields[0][1:]):
        return "a YOLO label file without class names; put a list of them, one per line, beside it as classes.txt"
    parts = lines[0].split(",")
    if len(parts) in (8, 9, 10) and _numeric(parts):
        return f"a label file of MOT or VisDrone; {_CONVERT}"
    return None


def _shares(fields: Iterable[str]) -> bool:
    return _numeric(fields) and all(0 <= float(field) <= 1 for field in fields)


def _numeric(fields: Iterable[str]) -> bool:
    return all(re.fullmatch(r"\s*-?\d+(\.\d*)?(e-?\d+)?\s*", field) for field in fields)


def _settings(file: Path) -> str | None:
    text = _head(file)
    if re.search(r"^annotations:", text, re.MULTILINE) and "images:" in text:
        return f"a YAML file of annotations; {_CONVERT}"
    return None


def _masks(folder: Path) -> str | None:
    """A folder of pictures and one of PNG masks of the same names."""
    for name in ("masks", "labels", "annotations", "SegmentationObject", "SegmentationClass"):
        place = folder / name
        if place.is_dir() and any(place.glob("*.png")) and not any(place.glob("*.txt")):
            return (
                f"{place}: is a folder of PNG files, but not masks (of few values) with the names of pictures beside "
                "it; put the pictures in 'images' beside it, or convert the masks to COCO's JSON"
            )
    return None
