"""YOLO text files, one an image: lines `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 …` for a polygon.

Numbers are shares of the image's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deixis.data.findings import Findings, collecting
from deixis.data.images import image_sizes_hw
from deixis.data.readers.coco_values import mask_rle
from deixis.data.readers.files import clip_instances, holds_text, read_text, vocabulary_of, warn_dropped
from deixis.data.readers.yolo_layout import YoloLayout, label_file, read_layout
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.geometry.pixel_boxes import denormalise_boxes
from deixis.records import Instances, Rle, Sample, SampleList

_Row = tuple[int, list[float]]


def find_data_yaml(folder: Path) -> list[Path]:
    """The YAML files of a folder that have class names."""
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return [file for file in files if holds_text(file, "names:")]


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
        path: the YAML file or its folder.
        images: a folder of images to read in place of the split's; labels are found from them.
        masks: keep polygons as masks.
        split: train, val or test; may be left out where there is one.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: no usable YAML file, no images, no label file at all, or a line that is neither box nor polygon.
    """
    layout = read_layout(_yaml_file(Path(path)))
    vocabulary = vocabulary_of(layout.names, str(layout.file))
    files = layout.images_of(split) if images is None else _given(layout, images)
    if not any(label_file(image).is_file() for image in files):
        raise DataError(
            f"{layout.file}: none of {len(files)} images has a label file; the first would be {label_file(files[0])}"
        )
    samples, dropped = [], []
    for number, image in enumerate(files, start=1):
        labels, size_hw = label_file(image), (0, 0)
        with collecting(findings, "image_unreadable", image, labels.name, "image removed"):
            size_hw = image_sizes_hw(image)[0]
        if size_hw == (0, 0):
            continue
        rows: list[_Row] = []
        if labels.is_file():
            with collecting(findings, "file_malformed", labels, "", "its objects removed"):
                rows = _rows(labels, layout, findings)
        instances, lost = clip_instances(_instances(rows, size_hw, masks), size_hw, keep_all=findings is not None)
        dropped += [labels.name] * lost
        samples.append(Sample(image, size_hw, instances, vocabulary, number, labels.name))
    warn_dropped(str(layout.file), dropped)
    return SampleList(tuple(samples), vocabulary, name=layout.file.resolve().parent.name)


def _yaml_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = find_data_yaml(path)
    if len(found) != 1:
        seen = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{path}: wanted one YAML file with class names, found {seen}; give the file itself")
    return found[0]


def _given(layout: YoloLayout, images: Path) -> list[Path]:
    return YoloLayout(layout.file, layout.names, {"given": [images]}, layout.keypoints).images_of(None)


def _rows(file: Path, layout: YoloLayout, findings: Findings | None) -> list[_Row]:
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            with collecting(findings, "record_malformed", file, f"line {number}", "line removed"):
                rows.append(_row(line.split(), f"{file}: line {number}", layout))
    return rows


def _row(fields: Sequence[str], where: str, layout: YoloLayout) -> _Row:
    try:
        label, values = float(fields[0]), [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"{where}: wanted numbers, got {' '.join(fields)[:80]!r}; correct the line") from error
    if layout.keypoints and len(values) > 4:
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise DataError(f"{where}: wanted a class and 4 numbers of a box or 6 and more of a polygon, got {len(values)}")
    if label not in range(len(layout.names)):
        raise DataError(f"{where}: class {fields[0]} is not one of the {len(layout.names)} names of {layout.file.name}")
    if not all(math.isfinite(value) for value in values) or max(map(abs, values)) > 2:
        raise DataError(f"{where}: numbers must be shares of the image's size, from 0 to 1, got {values[:8]}")
    return int(label), values


def _instances(rows: Sequence[_Row], size_hw: tuple[int, int], masks: bool) -> Instances:
    boxes: list[list[float]] = []
    areas: list[float] = []
    found: list[Rle | None] = []
    for _, values in rows:
        box, area, mask = _box(values, size_hw) if len(values) == 4 else _polygon(values, size_hw, masks)
        boxes.append(box)
        areas.append(area)
        found.append(mask)
    whole = [mask for mask in found if mask is not None]
    return Instances.build(
        boxes, [label for label, _ in rows], None, areas, whole if whole and len(whole) == len(rows) else None
    )


def _box(values: list[float], size_hw: tuple[int, int]) -> tuple[list[float], float, None]:
    (box,) = denormalise_boxes(np.array([values]), size_hw).tolist()
    return box, max(box[2] - box[0], 0) * max(box[3] - box[1], 0), None


def _polygon(values: list[float], size_hw: tuple[int, int], masks: bool) -> tuple[list[float], float, Rle | None]:
    points = np.array(values).reshape(-1, 2) * size_hw[::-1]
    x, y = points.T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    mask = mask_rle([points.reshape(-1).tolist()], size_hw) if masks else None
    return [*points.min(0).tolist(), *points.max(0).tolist()], area, mask
