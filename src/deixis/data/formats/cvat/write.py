"""Data sets to CVAT for images 1.1."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.geometry.masks import box_of_mask
from deixis.records import Dataset, Rle, Sample, Vocabulary


def write_cvat(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`annotations.xml` and `images/`: what CVAT exports and imports as "CVAT for images 1.1". Crowds are left out.

    An object with a mask becomes a mask, which CVAT edits with its brush, any other a box.

    Returns:
        the file, for `read_cvat`.
    """
    with new_folder(folder) as draft:
        root = ElementTree.Element("annotations")
        _add(root, "version", "1.1")
        _meta(root, dataset.vocabulary, len(dataset))
        for number, (sample, name) in enumerate(placed(dataset, draft / "images", images)):
            height, width = sample.size_hw
            values = {"id": str(number), "name": name, "width": str(width), "height": str(height)}
            _shapes(ElementTree.SubElement(root, "image", values), sample, masks)
        tree = ElementTree.ElementTree(root)
        ElementTree.indent(tree)
        tree.write(draft / "annotations.xml", encoding="utf-8", xml_declaration=True)
    return folder / "annotations.xml"


def _meta(root: ElementTree.Element, vocabulary: Vocabulary, count: int) -> None:
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    # The last frame is included.
    for key, value in (("size", count), ("mode", "annotation"), ("start_frame", 0), ("stop_frame", count - 1)):
        _add(task, key, str(value))
    labels = ElementTree.SubElement(task, "labels")
    for name in vocabulary.names:
        label = ElementTree.SubElement(labels, "label")
        _add(label, "name", name)
        _add(label, "type", "any")
        ElementTree.SubElement(label, "attributes")


def _shapes(image: ElementTree.Element, sample: Sample, masks: bool) -> None:
    objects = sample.instances.select(~sample.instances.is_crowd)
    for i, corners in enumerate(objects.boxes_xyxy_px.tolist()):
        label = sample.vocabulary.names[int(objects.class_ids[i])]
        values = {"label": label, "source": "manual", "occluded": "0"}
        drawn = _mask(objects.masks_rle[i]) if masks and objects.masks_rle is not None else {}
        if not drawn:
            values |= {key: _text(value) for key, value in zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)}
        ElementTree.SubElement(image, "mask" if drawn else "box", values | drawn | {"z_order": "0"})


def _mask(rle: Rle) -> dict[str, str]:
    """The bounds of a mask and its runs, row by row, unset pixels first; nothing where it is empty."""
    pixels = np.ascontiguousarray(coco_mask.decode(rle))
    if not pixels.any():
        return {}
    left, top, right, bottom = box_of_mask(pixels)
    flat = pixels[top:bottom, left:right].reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    text = ", ".join(map(str, [0, *runs] if flat[0] else runs))  # the first run is of unset pixels, if only none
    sides = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return {"rle": text, **{key: str(value) for key, value in sides.items()}}


def _text(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
