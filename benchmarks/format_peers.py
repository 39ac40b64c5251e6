"""What `compare_formats.py` asks of other packages, each in an environment of its own; imports nothing of deixis.

    PYTHON format_peers.py datumaro read FORMAT FOLDER
    PYTHON format_peers.py datumaro write FORMAT FOLDER NEW_FOLDER
    PYTHON format_peers.py label-studio to COCO|YOLO|VOC FOLDER NEW_FOLDER
    PYTHON format_peers.py label-studio from coco FILE NEW_FILE
    PYTHON format_peers.py label-studio brush tasks FOLDER ""

The last line printed is JSON: the package's version, and by image name the (class, x1, y1, x2, y2) of its objects.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

Found = dict[str, list[list[Any]]]


def datumaro_boxes(dataset: Any) -> Found:
    """The bounds of every annotation, by image; of an object with a mask and a box those of the mask."""
    from datumaro.components.annotation import AnnotationType

    labels = dataset.categories()[AnnotationType.label]
    found: Found = {}
    for item in dataset:
        rows = []
        drawn = [one for one in item.annotations if one.type != AnnotationType.bbox]
        for one in drawn or item.annotations:
            if hasattr(one, "get_bbox"):
                x, y, width, height = map(float, one.get_bbox())
                rows.append([labels[one.label].name, x, y, x + width, y + height])
        found[f"{item.id}.png"] = rows
    return found


def datumaro(action: str, format: str, folder: str, target: str = "") -> Found:
    """Read a folder, or read one of Datumaro's own format and write another."""
    from datumaro import Dataset

    dataset = Dataset.import_from(folder, format if action == "read" else "datumaro")
    if action == "write":
        dataset.export(target, format, save_media=True)
    return datumaro_boxes(dataset)


def label_studio(action: str, format: str, source: str, target: str) -> Found:
    """Convert tasks to another format, or COCO to tasks, which deixis reads; or decode the brushes of tasks."""
    if action == "brush":
        return brushes(Path(source))
    if action == "from":
        from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

        convert_coco_to_ls(source, target, image_root_url="/data/local-files/?d=images")
        return {}
    from label_studio_sdk.converter import Converter

    home = Path(source)
    converter = Converter((home / "label_config.xml").read_text(encoding="utf-8"), str(home), download_resources=False)
    converter.convert(str(home / "tasks.json"), target, format, is_dir=False)
    return {}


def brushes(home: Path) -> Found:
    """The bounds of every brush."""
    import numpy as np
    from label_studio_sdk.converter.brush import decode_rle

    found: Found = {}
    for task in json.loads((home / "tasks.json").read_text(encoding="utf-8")):
        rows = []
        for region in task["annotations"][0]["result"]:
            size = region["original_height"], region["original_width"]
            ys, xs = np.nonzero(decode_rle(region["value"]["rle"]).reshape(*size, 4)[..., 3])
            box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            rows.append([region["value"]["brushlabels"][0], *box])
        found[task["data"]["image"].rpartition("/")[2]] = rows
    return found


def main() -> None:
    peer, *words = sys.argv[1:]
    found = datumaro(*words) if peer == "datumaro" else label_studio(*words)
    package = "datumaro" if peer == "datumaro" else "label-studio-sdk"
    print("\n" + json.dumps({"version": version(package), "boxes": found}))


if __name__ == "__main__":
    main()
