"""Readers and writers of annotation formats beside those of another package, on the same data sets.

    python benchmarks/compare_formats.py [a data set of your own]

Compares with supervision (COCO, YOLO, Pascal VOC), where it is installed; what must stay out of the project's own
environment can be put on PYTHONPATH (`pip install --no-deps --target FOLDER supervision`). Objects are compared by
image, class and box: those without their like are counted, and the largest distance of a corner is given in pixels.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.formats import read_dataset
from deixis.data.formats.writing import write_dataset
from deixis.data.sets.embedded import records
from deixis.records import Dataset

RESULTS = Path(__file__).parent / "results"
SCENES = "scenes:split=demo_train,count=60,seed=3"
Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]
"""By image name: (class name, xyxy in pixels) of its objects."""


def ours(dataset: Dataset) -> Boxes:
    """What our readers found."""
    found: Boxes = {}
    for sample in records(dataset):
        assert isinstance(sample.image, Path)
        names = [sample.vocabulary.names[i] for i in sample.instances.class_ids]
        boxes = [tuple(box) for box in sample.instances.boxes_xyxy_px.tolist()]
        found[sample.image.name] = list(zip(names, boxes, strict=True))
    return found


def theirs(dataset: Any) -> Boxes:
    """What supervision's readers found."""
    found: Boxes = {}
    for path, detections in dataset.annotations.items():
        names = [dataset.classes[i] for i in ([] if detections.class_id is None else detections.class_id)]
        found[Path(path).name] = list(zip(names, map(tuple, detections.xyxy.tolist()), strict=True))
    return found


def difference(one: Boxes, other: Boxes) -> tuple[int, int, float]:
    """(objects, objects without their like in the other, largest distance of a corner in pixels)."""
    missing, largest, total = 0, 0.0, 0
    for name in one.keys() | other.keys():
        left, right = list(one.get(name, [])), list(other.get(name, []))
        total += len(left)
        for label, box in left:
            distances = [
                float(np.abs(np.subtract(box, near)).max()) if label == named else np.inf for named, near in right
            ]
            best = int(np.argmin(distances)) if distances else -1
            if best < 0 or distances[best] > 2:
                missing += 1
                continue
            largest = max(largest, distances[best])
            del right[best]
        missing += len(right)
    return total, missing, largest


def supervision_rows(data: Mapping[str, Path], home: Path) -> list[tuple[str, str, tuple[int, int, float]]]:
    """(what, set, difference) of supervision's readers on what we write, and of ours on what it writes."""
    supervision: Any = importlib.import_module("supervision")

    sets = supervision.DetectionDataset
    read: dict[str, Callable[[Path], Any]] = {
        "coco": lambda f: sets.from_coco(str(f / "images"), str(f / "labels.json")),
        "voc": lambda f: sets.from_pascal_voc(str(f / "JPEGImages"), str(f / "Annotations")),
        "yolo": lambda f: sets.from_yolo(
            str(f / "images" / "train"), str(f / "labels" / "train"), str(f / "data.yaml")
        ),
    }
    rows = []
    for title, source in data.items():
        whole = read_dataset(source)
        for format, reader in read.items():
            folder = home / f"{title}_{format}"
            mine = ours(read_dataset(write_dataset(whole, folder, format, masks=False)))
            other = reader(folder)
            rows.append((f"{format} written here, read by both", title, difference(mine, theirs(other))))
            back = home / f"{title}_{format}_back"
            place = written_by_supervision(other, back, format)
            again = ours(read_dataset(place, back / "images"))
            rows.append((f"{format} written by supervision, read here", title, difference(theirs(other), again)))
    return rows


def written_by_supervision(dataset: Any, folder: Path, format: str) -> Path:
    """Its writer, and the place that our reader takes."""
    images, labels = str(folder / "images"), folder / "labels"
    if format == "coco":
        dataset.as_coco(images_directory_path=images, annotations_path=str(folder / "labels.json"))
        return folder / "labels.json"
    if format == "voc":
        dataset.as_pascal_voc(images_directory_path=images, annotations_directory_path=str(labels))
        return labels
    dataset.as_yolo(
        images_directory_path=images, annotations_directory_path=str(labels), data_yaml_path=str(folder / "data.yaml")
    )
    yaml = folder / "data.yaml"
    yaml.write_text(yaml.read_text() + "\ntrain: images\n")
    return yaml


def main() -> int:
    """Compare, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a data set of your own, compared too")
    arguments = parser.parse_args()
    if importlib.util.find_spec("supervision") is None:
        print("supervision is not installed; nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = {"scenes": write_dataset(read_dataset(SCENES), home / "scenes", "coco")}
        if arguments.data is not None:
            data[arguments.data.name] = arguments.data
        rows = supervision_rows(data, home)
    version = importlib.metadata.version("supervision")
    lines = [
        "# Formats read and written here and by supervision",
        "",
        f"supervision {version}, {datetime.date.today()}: `python benchmarks/compare_formats.py`. Boxes only.",
        "",
        "| what | set | objects | objects that differ | largest distance, px |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {what} | {title} | {n} | {missing} | {far:.2g} |" for what, title, (n, missing, far) in rows]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / f"formats_vs_supervision_{datetime.date.today()}.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
