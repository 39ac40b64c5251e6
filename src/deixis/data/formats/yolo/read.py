"""YOLO text files, one per image: lines `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 …` for a polygon.

Numbers are shares of the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text, the_file
from deixis.data.formats.foreign import foreign_file
from deixis.data.formats.shared.annotated_objects import AnnotatedObject, polygon
from deixis.data.formats.shared.assemble import Picture, assemble
from deixis.data.formats.yolo.labels import LabelFiles, LabelRow, read_rows, require_no_keypoints
from deixis.data.formats.yolo.layout import YoloLayout, images_in, label_file, read_layout
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.pixels.images import image_sizes_hw
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.geometry.pixel_boxes import denormalise_boxes
from deixis.records import SampleList


def find_yolo(path: Path) -> list[Path]:
    """The YAML files of a folder that have class names; or a YAML file itself."""
    if path.is_dir():
        files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        return [file for file in files if not is_left_by_macos(file) and holds_text(file, "names:")]
    return [path] if path.suffix.lower() in (".yaml", ".yml") and foreign_file(path) is None else []


@reads("YOLO annotations")
def read_yolo(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """A YOLO data set by its `data.yaml`, or by the folder that holds it.

    An image without a text file, or with an empty one, has no objects. Polygons become masks where all objects of
    an image have one, and their bounds become the boxes. Lines with keypoints (`kpt_shape`) give their box.

    Args:
        images: a folder of images to read in place of the split's; labels are found from them.
        split: train, val or test; may be left out where there is one.

    Raises:
        DataError: no usable YAML file, no images, no label file at all, or a line that is neither box nor polygon.
    """
    file = the_file(path, find_yolo, "YAML file with class names")
    layout = read_layout(file)
    files = layout.images_of(split) if images is None else images_in([images], str(layout.file))
    labels_of = LabelFiles(files)
    if not any(labels_of.of(image).is_file() for image in files):
        raise DataError(
            f"{layout.file}: none of {len(files)} images has a label file; the first would be {label_file(files[0])}"
        )
    labels_of.warn(layout.file)
    return labelled_samples(layout, [(image, labels_of.of(image)) for image in files], masks, findings)


def labelled_samples(
    layout: YoloLayout, files: Sequence[tuple[Path, Path]], masks: bool, findings: Findings | None
) -> SampleList:
    """The data set of some pictures, each with its label file, which need not be there; see `read_yolo`."""
    pictures, all_rows = [], []
    for number, (image, labels) in enumerate(files, start=1):
        with collecting(findings, "image_unreadable", image, labels.name, "image removed"):
            size_hw = image_sizes_hw(image)[0]
            rows: list[LabelRow] = []
            if labels.is_file():
                with collecting(findings, "file_malformed", labels, "", "its objects removed"):
                    rows = read_rows(labels, layout, findings)
            all_rows.append(rows)
            objects = tuple(_object(layout.names[label], values, size_hw, masks) for label, values in rows)
            pictures.append(Picture(image, size_hw, objects, labels.name, image_id=number))
    require_no_keypoints(all_rows, layout)
    return assemble(layout.file, pictures, layout.names, layout.file.resolve().parent.name, findings)


def _object(name: str, values: list[float], size_hw: tuple[int, int], masks: bool) -> AnnotatedObject:
    if len(values) == 4:
        (box,) = denormalise_boxes(np.array([values]), size_hw).tolist()
        return AnnotatedObject(name, tuple(box))
    points = np.array(values).reshape(-1, 2) * size_hw[::-1]  # (x, y) by (width, height)
    return polygon(name, [points], size_hw, masks=masks)
