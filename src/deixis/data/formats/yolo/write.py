"""Data sets to YOLO text files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.geometry.masks import joined_outline
from deixis.geometry.pixel_boxes import normalise_boxes
from deixis.records import Dataset, Rle, Sample


def write_yolo(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`data.yaml`, and `images/train/` and `labels/train/` for each part, all of one vocabulary. Crowds are left out.

    An object with a mask becomes a polygon along the edges of the mask's pixels, so the mask comes back bit for bit;
    its box is then the mask's. Parts and holes are joined by cuts of no width.

    Returns:
        the YAML file, for `read_yolo`.
    """
    return write_labels(parts, folder, images, lambda sample: label_lines(sample, masks))


def write_labels(
    parts: Mapping[str, Dataset],
    folder: Path,
    images: ImageMode,
    lines_of: Callable[[Sample], Sequence[str]],
    head: str = "",
) -> Path:
    """`data.yaml`, the images, and for each a text file.

    Args:
        lines_of: the lines of an image's text file.
        head: a first line of `data.yaml`.
    """
    with new_folder(folder) as draft:
        for split, dataset in parts.items():
            (draft / "labels" / split).mkdir(parents=True)
            for sample, name in placed(dataset, draft / "images" / split, images):
                text = "".join(f"{line}\n" for line in lines_of(sample))
                (draft / "labels" / split / name).with_suffix(".txt").write_text(text)
        names = dict(enumerate(next(iter(parts.values())).vocabulary.names))
        places = {split: f"images/{split}" for split in parts}
        content = {"path": ".", **places, "nc": len(names), "names": names}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (draft / "data.yaml").write_text(f"{head}\n{text}" if head else text, encoding="utf-8")
    return folder / "data.yaml"


def label_lines(sample: Sample, masks: bool) -> list[str]:
    """An image's lines of a label file: class, then a box, or the outline of a mask; without crowds."""
    objects = sample.instances.select(~sample.instances.is_crowd)
    boxes = normalise_boxes(objects.boxes_xyxy_px, sample.size_hw)
    lines = []
    for i, class_id in enumerate(objects.class_ids.tolist()):
        numbers = boxes[i]
        if masks and objects.masks_rle is not None:
            numbers = _polygon(objects.masks_rle[i], objects.boxes_xyxy_px[i], sample.size_hw)
        lines.append(" ".join([str(class_id), *map(repr, numbers.tolist())]))
    return lines


def _polygon(rle: Rle, box_xyxy_px: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The mask's outline over the image's size; the box's where the mask is empty, so a file never mixes kinds."""
    points = joined_outline(np.ascontiguousarray(coco_mask.decode(rle)))
    if not len(points):
        x1, y1, x2, y2 = box_xyxy_px.tolist()
        points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    polygon: np.ndarray = (points / np.array(size_hw[::-1])).reshape(-1)
    return polygon
