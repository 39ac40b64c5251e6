"""Data sets to TensorFlow's table of boxes."""

from __future__ import annotations

import csv
from pathlib import Path

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset

_HEAD = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


def write_csv(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`_annotations.csv` beside the images, as Roboflow exports it, and `classes.txt`. Crowds are left out.

    A row is a box, with the name of its class; an image without boxes has a row without values.

    Returns:
        the file, for `read_csv`.
    """
    del masks  # the table has none
    with new_folder(folder) as draft:
        with (draft / "_annotations.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(_HEAD)
            for sample, name in placed(dataset, draft, images):
                height, width = sample.size_hw
                objects = sample.instances.select(~sample.instances.is_crowd)
                for class_id, box in zip(objects.class_ids.tolist(), objects.boxes_xyxy_px.tolist(), strict=True):
                    # `repr` keeps every digit, so that boxes come back as they were.
                    rows.writerow([name, width, height, sample.vocabulary.names[class_id], *map(repr, box)])
                if not len(objects):
                    rows.writerow([name, width, height, *[""] * 5])
        names = "".join(f"{name}\n" for name in dataset.vocabulary.names)
        (draft / "classes.txt").write_text(names, encoding="utf-8")
    return folder / "_annotations.csv"
