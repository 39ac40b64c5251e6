"""Data sets to Pascal VOC: one XML file per image."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from deixis.atomic_files import new_folder
from deixis.data.formats.placing import ImageMode, placed
from deixis.records import Dataset, Sample


def write_voc(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`Annotations/`, `JPEGImages/` and `ImageSets/Main/train.txt`. Crowds are left out.

    Pixels count from 1 and the last one is included; boxes between pixels keep their fractions.

    Returns:
        the folder, for `read_voc`.
    """
    del masks  # VOC's XML has none
    with new_folder(folder) as draft:
        stems = []
        (draft / "Annotations").mkdir()
        (draft / "ImageSets" / "Main").mkdir(parents=True)
        for sample, name in placed(dataset, draft / "JPEGImages", images):
            stems.append(Path(name).stem)
            tree = ElementTree.ElementTree(_annotation(sample, name))
            ElementTree.indent(tree)
            tree.write(draft / "Annotations" / f"{stems[-1]}.xml", encoding="utf-8", xml_declaration=True)
        listed = "".join(f"{stem}\n" for stem in stems)
        (draft / "ImageSets" / "Main" / "train.txt").write_text(listed, encoding="utf-8")
    return folder


def _annotation(sample: Sample, file_name: str) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", file_name)
    size = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*sample.size_hw[::-1], 3), strict=True):
        _add(size, key, str(value))
    objects = sample.instances.select(~sample.instances.is_crowd)
    for (x1, y1, x2, y2), class_id in zip(objects.boxes_xyxy_px.tolist(), objects.class_ids.tolist(), strict=True):
        node = ElementTree.SubElement(root, "object")
        _add(node, "name", sample.vocabulary.names[class_id])
        _add(node, "difficult", "0")
        box = ElementTree.SubElement(node, "bndbox")
        # pixels from 1, the last one included
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
            _add(box, key, str(int(value)) if value.is_integer() else repr(value))
    return root


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
