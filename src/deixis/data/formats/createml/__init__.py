"""Apple's CreateML: `[{"image": …, "annotations": [{"label": …, "coordinates": {"x", "y", "width", "height"}}]}]`.

Boxes are given by their centre.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.atomic_files import new_folder
from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import holds_text, parse_json, read_text
from deixis.data.formats.coco.values import finite_numbers
from deixis.data.formats.find_images import likely_folders
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, sized_pictures
from deixis.data.formats.shared.box_values import by_convention
from deixis.data.formats.shared.split_folders import head_of, split_file, split_files
from deixis.data.reading import reads
from deixis.errors import DataError
from deixis.records import Dataset, SampleList

_IMAGE_KEYS = ("image", "imagefilename", "imageURL", "filename")
_OBJECT_KEYS = ("annotations", "annotation")
_KEYS = ("x", "y", "width", "height")


def find_createml(path: Path) -> list[Path]:
    """The CreateML files of a folder, or of its folders train, valid and test; or a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and _is_createml(path) else []
    return split_files(path, "json", _is_createml)


def _is_createml(file: Path) -> bool:
    head = head_of(file)
    # Label Studio's tasks are a list too, of objects with "data".
    if not re.match(r"\s*\[", head) or '"data"' in head:
        return False
    image, objects = (any(f'"{key}"' in head for key in keys) for keys in (_IMAGE_KEYS, _OBJECT_KEYS))
    return image and objects and ('"coordinates"' in head or holds_text(file, '"coordinates"'))


@reads("CreateML annotations")
def read_createml(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A CreateML JSON file, or the folder that holds one, or one each in folders train, valid and test.

    Boxes are a centre and a size in pixels. Where that leaves the images and another meaning does not (corners or
    shares of the image), the other is taken, with a warning. Images without annotations have no objects. Class names
    are sorted.

    Args:
        split: train, val or test, where the folder has such folders.

    Raises:
        DataError: malformed JSON, a record that is none, or missing images.
    """
    file = split_file(Path(path), split, find_createml)
    content = parse_json(read_text(file), str(file))
    if not isinstance(content, list):
        raise DataError(f"{file}: holds a {type(content).__name__}, not CreateML's list of images")
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for number, row in enumerate(content, start=1):
        with collecting(findings, "record_malformed", file, f"image {number}", "image removed"):
            name, objects = _image(row, f"{file}: image {number}")
            found.setdefault(name, [])
            for place, thing in enumerate(objects, start=1):
                where = f"image {number}, annotation {place}"
                with collecting(findings, "record_malformed", file, where, "object removed"):
                    found[name].append(_object(thing, f"{file}: {where}"))
    if not found:
        raise DataError(f"{file}: lists no image; there is nothing to train on or evaluate")
    there = sized_pictures(file, found, images, likely_folders(file.parent), findings=findings)
    # From all images together: a few boxes alone fit several meanings.
    boxes = [[box for _, box in found[name]] for name, *_ in there]
    corners, note = by_convention(boxes, [size_hw for *_, size_hw in there], "centre")
    if note:
        warnings.warn(f"{file}: {note}", stacklevel=3)
    pictures = []
    for (name, image, size_hw), own in zip(there, corners, strict=True):
        drawn = tuple(AnnotatedObject(one[0], tuple(box)) for one, box in zip(found[name], own.tolist(), strict=True))
        pictures.append(Picture(image, size_hw, drawn, f"{file.name}: {name}"))
    return assemble(file, pictures, None, file.resolve().parent.name, findings)


def _image(row: Any, where: str) -> tuple[str, list[Any]]:
    name = next((row[key] for key in _IMAGE_KEYS if key in row), None) if isinstance(row, Mapping) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: has no image file name, got {str(row)[:80]!r}")
    objects = next((row[key] for key in _OBJECT_KEYS if key in row), None) or []
    if not isinstance(objects, list):
        raise DataError(f"{where}: annotations must be a list, got {str(objects)[:80]!r}")
    return name, objects


def _object(thing: Any, where: str) -> tuple[str, list[float]]:
    label = thing.get("label") if isinstance(thing, Mapping) else None
    if not isinstance(label, str | int) or not str(label).strip():
        raise DataError(f"{where}: has no label, got {str(thing)[:80]!r}; add one")
    given = thing.get("coordinates")
    numbers = finite_numbers([given.get(key) for key in _KEYS] if isinstance(given, Mapping) else None, 4)
    if numbers is None:
        raise DataError(f"{where}: coordinates must be the numbers x, y, width and height, got {str(given)[:80]}")
    return str(label), numbers


FILE = "_annotations.createml.json"


def write_createml(dataset: Dataset, folder: Path, images: ImageMode = "copy", masks: bool = True) -> Path:
    """`_annotations.createml.json` beside the images, as Create ML takes a folder. Crowds are left out.

    Returns:
        the JSON file, for `read_createml`.
    """
    del masks  # CreateML has none
    with new_folder(folder) as draft:
        rows = []
        for sample, name in placed(dataset, draft, images):
            objects = sample.instances.select(~sample.instances.is_crowd)
            annotations = [
                {
                    "label": sample.vocabulary.names[class_id],
                    "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
                }
                for (x1, y1, x2, y2), class_id in zip(
                    objects.boxes_xyxy_px.tolist(), objects.class_ids.tolist(), strict=True
                )
            ]
            rows.append({"image": name, "annotations": annotations})
        (draft / FILE).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / FILE


CREATEML = Format(
    "createml",
    find_createml,
    read_createml,
    takes=("split", "findings"),
    write=write_createml,
    holds=Holds(all_names=False),
)
