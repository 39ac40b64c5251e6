"""Data sets to YOLO text files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.shared.annotated_objects import outline_of
from deixis.geometry.pixel_boxes import normalise_boxes
from deixis.records import Dataset, Sample


def write_yolo(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`data.yaml`, and `images/train/` and `labels/train/` for each part, all of one vocabulary. Crowds are left out.

    Without a part `val`, `data.yaml` names the training images for it too, as Ultralytics loads no file without.

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
                (draft / "labels" / split / name).with_suffix(".txt").write_text(text, encoding="utf-8")
        names = dict(enumerate(next(iter(parts.values())).vocabulary.names))
        places = {split: f"images/{split}" for split in parts}
        first = next(iter(places.values()))
        # Ultralytics needs both, and without `path` it looks in the file's own folder.
        train = places.get("train", first)
        places = {"train": train, "val": train, **places}
        content = {**places, "nc": len(names), "names": names}
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
            points = outline_of(objects.masks_rle[i], objects.boxes_xyxy_px[i])
            numbers = (points / np.array(sample.size_hw[::-1])).reshape(-1)
        lines.append(" ".join([str(class_id), *map(repr, numbers.tolist())]))
    return lines
