"""Readers and writers of annotation formats beside those of other packages, on the same data sets.

    python benchmarks/compare_formats.py [MY_DATA] [--datumaro PYTHON] [--label-studio PYTHON] [--write]

Compares with supervision (COCO, YOLO, Pascal VOC), where it is installed; what must stay out of the project's own
environment can be put on PYTHONPATH (`pip install --no-deps --target FOLDER supervision`). Datumaro and Label Studio's
converter (`label-studio-sdk`) cannot share this environment: make one for each and give its interpreter. Objects are
compared by image, class and box: those without their like are counted, and the largest distance of a corner is given
in pixels.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
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
Row = tuple[str, str, tuple[int, int, float]]
"""What, on which set, and the difference."""
SCENES = "scenes:split=demo_train,count={},seed=3"
DATUMARO_READS = {
    "coco": "coco_instances",
    "cvat": "cvat",
    "datumaro": "datumaro",
    "darknet": "yolo",
    "createml": "roboflow_create_ml",
}
"""Our format, and Datumaro's name for it. It reads Pascal VOC only with a `labelmap.txt` of its own."""
DATUMARO_NOTES = """Differences that are Datumaro's own:

- It takes CreateML's `x` and `y` for a corner; Create ML and Roboflow write the middle.
- It writes Pascal VOC counted from 0; VOC counts pixels from 1, as its reader here does."""
DATUMARO_WRITES = {"coco_instances": "annotations", "cvat": "", "datumaro": "", "yolo": "", "voc_detection": ""}
"""Datumaro's format, and where our reader finds it."""
PEERS = Path(__file__).with_name("format_peers.py")
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


def supervision_rows(data: Mapping[str, Path], home: Path) -> list[Row]:
    """Supervision's readers on what we write, and ours on what it writes."""
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


def asked(python: str, *words: str | Path) -> tuple[str, Boxes]:
    """(version, boxes) that `format_peers.py` answers under another interpreter."""
    command = [python, str(PEERS), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    boxes = {name: [(label, tuple(box)) for label, *box in rows] for name, rows in answer["boxes"].items()}
    return answer["version"], boxes


def datumaro_rows(python: str, data: Mapping[str, Path], home: Path) -> tuple[str, list[Row]]:
    """Datumaro's version, its readers on what we write, and ours on what it writes; of masks their bounds."""
    version, rows = "", []
    for title, source in data.items():
        whole = read_dataset(source)
        for masks, formats in ((False, DATUMARO_READS), (True, ("coco", "cvat", "datumaro"))):
            kind = "masks" if masks else "boxes"
            for format in formats:
                folder = home / f"{title}_{format}_{kind}_for_datumaro"
                mine = ours(read_dataset(write_dataset(whole, folder, format, masks=masks)))
                if format == "coco":  # which Datumaro knows by its folders
                    (folder / "annotations").mkdir()
                    (folder / "labels.json").rename(folder / "annotations" / "instances_train.json")
                version, boxes = asked(python, "datumaro", "read", DATUMARO_READS[format], folder)
                rows.append((f"{format}, {kind}, written here, read by both", title, difference(mine, boxes)))
            own = home / f"{title}_datumaro_{kind}_for_datumaro"
            for format, place in list(DATUMARO_WRITES.items())[: 3 if masks else None]:  # the others have no masks
                back = home / f"{title}_{format}_{kind}_by_datumaro"
                _, boxes = asked(python, "datumaro", "write", format, own, back)
                again = ours(read_dataset(back / place))
                rows.append((f"{format}, {kind}, written by Datumaro, read here", title, difference(boxes, again)))
    return f"Datumaro {version}", rows


def label_studio_rows(python: str, data: Mapping[str, Path], home: Path) -> tuple[str, list[Row]]:
    """Version of Label Studio's converter, and ours beside what it makes of our tasks and of our COCO."""
    version, rows = "", []
    for title, source in data.items():
        whole = read_dataset(source)
        folder = home / f"{title}_label_studio"
        mine = ours(read_dataset(write_dataset(whole, folder, "label_studio", masks=False)))
        for format in ("COCO", "YOLO", "VOC"):
            back = home / f"{title}_{format}_by_label_studio"
            version, _ = asked(python, "label-studio", "to", format, folder, back)
            shutil.rmtree(back / "images", ignore_errors=True)  # empty, as it downloads none
            again = ours(read_dataset(back / "Annotations" if format == "VOC" else back, folder / "images"))
            rows.append((f"our tasks converted to {format} and read here", title, difference(mine, again)))
        brushes = home / f"{title}_brushes"
        mine = ours(read_dataset(write_dataset(whole, brushes, "label_studio")))
        _, boxes = asked(python, "label-studio", "brush", "tasks", brushes, "")
        rows.append(("brushes of our tasks, decoded by both", title, difference(mine, boxes)))
        coco = write_dataset(whole, home / f"{title}_coco_for_label_studio", "coco", masks=False)
        asked(python, "label-studio", "from", "coco", coco, coco.with_name("tasks.json"))
        tasks = ours(read_dataset(coco.with_name("tasks.json"), coco.parent / "images"))
        rows.append(("our COCO converted to tasks and read here", title, difference(ours(read_dataset(coco)), tasks)))
    return f"label-studio-sdk {version}", rows


def report(name: str, package: str, rows: list[Row], notes: str = "", *, write: bool) -> None:
    """Print a table and, where asked, write it into a result file."""
    lines = [
        f"# Formats read and written here and by {package.split()[0]}",
        "",
        f"{package}, {datetime.date.today()}: `python benchmarks/compare_formats.py`. Boxes; of masks their bounds.",
        "",
        "| what | set | objects | objects that differ | largest distance, px |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {what} | {title} | {n} | {missing} | {far:.2g} |" for what, title, (n, missing, far) in rows]
    text = "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"
    print(text)
    if write:
        (RESULTS / f"formats_vs_{name}_{datetime.date.today()}.md").write_text(text, encoding="utf-8")


def main() -> int:
    """Compare, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a data set of your own, compared too")
    parser.add_argument("--datumaro", metavar="PYTHON", help="interpreter of an environment with datumaro")
    parser.add_argument("--label-studio", metavar="PYTHON", help="interpreter of an environment with label-studio-sdk")
    parser.add_argument("--scenes", type=int, default=60, help="generated images that are compared")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = {"scenes": write_dataset(read_dataset(SCENES.format(arguments.scenes)), home / "scenes", "coco")}
        if arguments.data is not None:
            data[arguments.data.name] = arguments.data
        if arguments.datumaro is not None:
            rows = datumaro_rows(arguments.datumaro, data, home)
            report("datumaro", *rows, DATUMARO_NOTES, write=arguments.write)
        if arguments.label_studio is not None:
            report("label_studio", *label_studio_rows(arguments.label_studio, data, home), write=arguments.write)
        if importlib.util.find_spec("supervision") is None:
            print("supervision is not installed; not compared")
        else:
            package = f"supervision {importlib.metadata.version('supervision')}"
            report("supervision", package, supervision_rows(data, home), write=arguments.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
