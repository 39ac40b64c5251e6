"""Datumaro's JSON."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco_mask

from deixis.atomic_files import new_folder
from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import holds_text, parse_object, read_text, same_split
from deixis.data.formats.coco.values import finite_number, image_size, mask_rle
from deixis.data.formats.placing import ImageMode, placed
from deixis.data.formats.record import Format, Holds
from deixis.data.formats.shared.annotated_images import AnnotatedImage, Objects, one_record, samples_of
from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    box,
    ellipse_outline,
    from_rle,
    joined,
    points_of,
    polygon,
)
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import reads
from deixis.errors import DataError, NoSuchSplitError
from deixis.geometry.rle import plain_rle
from deixis.records import Dataset, Sample, SampleList
from deixis.text import tallied

_DRAWN = ("bbox", "polygon", "mask", "ellipse")
_SUFFIXES = (".jpg", ".png", ".jpeg")  # an item's id is its file's name without one


@dataclass
class _Content:
    path: Path
    findings: Findings | None
    masks: bool
    names: list[str]
    left_out: Counter[str] = field(default_factory=Counter)


def find_datumaro(path: Path) -> list[Path]:
    """The JSON files of Datumaro in a folder or in its `annotations`, one for each subset; or a file itself."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and _is_datumaro(path) else []
    files = sorted(file for place in (path / "annotations", path) for file in place.glob("*.json"))
    return [file for file in files if not is_left_by_macos(file) and _is_datumaro(file)]


def _is_datumaro(file: Path) -> bool:
    # COCO has "images" where Datumaro has "items".
    return holds_text(file, '"items"') and holds_text(file, '"categories"') and not holds_text(file, '"images"')


@reads("Datumaro JSON")
def read_datumaro(
    path: str | Path,
    images: Path | None = None,
    masks: bool = True,
    split: str | None = None,
    findings: Findings | None = None,
) -> SampleList:
    """A subset of Datumaro's, by its JSON file or by the folder of several.

    Boxes, polygons, masks and ellipses are objects; those of one label and one group are one object, whose masks count
    more than its boxes. Other kinds of annotations are counted in a warning.

    Args:
        images: the folder of images, where they are not in `images/SUBSET`.
        split: the subset, where a folder has several.

    Raises:
        DataError: malformed JSON, a subset that is not there, an annotation that is none, or a missing image.
    """
    file = _subset(Path(path), split)
    whole = parse_object(read_text(file), str(file))
    content = _Content(file, findings, masks, _names(whole, file))
    items = whole.get("items")
    if not isinstance(items, list):
        raise DataError(f"{file}: has no list of objects under 'items', as Datumaro JSON has; export it again")
    rows = []
    for number, item in enumerate(items, start=1):
        with one_record(findings, file, f"item {number}", "image"):
            rows.append(_row(item, number, content))
    found = samples_of(file, rows, content.names, images=images, findings=findings)
    if content.left_out:
        warnings.warn(f"{file}: left out {tallied(content.left_out)}; {', '.join(_DRAWN)} are read", stacklevel=3)
    return found


def _subset(path: Path, split: str | None) -> Path:
    files = find_datumaro(path) if path.is_dir() else [path]
    seen = ", ".join(file.stem for file in files) or "none"
    if split is not None:
        files = [file for file in files if same_split(file.stem.lower()) == same_split(split.lower())]
    if len(files) != 1:
        asked = f"no subset {split!r}" if split is not None else "several subsets, or none"
        kind = DataError if split is None else NoSuchSplitError
        raise kind(f"{path}: has {asked}; it has {seen}; name one, as in {path}#train")
    return files[0]


def _names(whole: Mapping[str, Any], file: Path) -> list[str]:
    try:
        return [str(label["name"]) for label in whole["categories"]["label"]["labels"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: has no names under categories, label, labels; export it again") from error


def _row(item: Any, number: int, content: _Content) -> AnnotatedImage:
    if not isinstance(item, dict):
        raise ValueError(f"is no object, got {str(item)[:60]!r}")
    name = str(number if item.get("id") in (None, "") else item["id"])
    image = item.get("image") if isinstance(item.get("image"), dict) else {}
    given = image.get("path") if isinstance(image, dict) else None
    plain = [given] if isinstance(given, str) and given else []
    names = [*plain, *(f"{name}{suffix}" for suffix in _SUFFIXES)]
    size = image.get("size") if isinstance(image, dict) else None
    size_hw = image_size(*size) if isinstance(size, list) and len(size) == 2 else None  # [height, width]
    rows = item.get("annotations") or []
    objects = _objects(content, rows if isinstance(rows, list) else (), f"item {name}")
    in_subset = [f"{content.path.stem}/{text}" for text in plain]
    return AnnotatedImage((*in_subset, *names), objects, f"{content.path.name}: item {name}", size_hw)


def _objects(content: _Content, rows: Sequence[Any], place: str) -> Objects:
    def objects(size_hw: tuple[int, int]) -> list[AnnotatedObject]:
        groups: dict[Any, list[tuple[str, AnnotatedObject]]] = {}
        for number, row in enumerate(rows, start=1):
            with one_record(content.findings, content.path, f"{place}: annotation {number}"):
                if not isinstance(row, dict):
                    raise ValueError("is no object")
                kind = str(row.get("type"))
                if kind not in _DRAWN:
                    content.left_out[kind[:40]] += 1
                    continue
                found = _object(row, kind, size_hw, content)
                key = (row["group"], found.label) if row.get("group") else number  # group 0 is none
                groups.setdefault(key, []).append((kind, found))
        return [_joined(parts) for parts in groups.values()]

    return objects


def _object(row: Mapping[str, Any], kind: str, size_hw: tuple[int, int], content: _Content) -> AnnotatedObject:
    number = row.get("label_id")
    if type(number) is not int or not 0 <= number < len(content.names):
        raise ValueError(f"has label_id {str(number)[:20]}, there are {len(content.names)} labels")
    label, masks = content.names[number], content.masks
    if kind == "mask":
        rle = mask_rle(row.get("rle"), size_hw)
        if rle is None:
            raise ValueError("has no rle")
        found = from_rle(label, rle, masks)
    elif kind == "bbox":
        x, y, width, height = _numbers(row.get("bbox"), 4)
        found = box(label, (x, y, x + width, y + height))
    elif kind == "ellipse":
        # The corners of the box around the ellipse.
        x1, y1, x2, y2 = _numbers(row.get("points"), 4)
        outline = ellipse_outline(((x1 + x2) / 2, (y1 + y2) / 2), (abs(x2 - x1) / 2, abs(y2 - y1) / 2))
        found = polygon(label, [outline], size_hw, masks=masks)
    else:
        found = polygon(label, [points_of(_numbers(row.get("points")))], size_hw, masks=masks)
    attributes = row.get("attributes")
    crowd = isinstance(attributes, dict) and attributes.get("is_crowd") in (True, 1)
    return replace(found, is_crowd=crowd)


def _joined(parts: Sequence[tuple[str, AnnotatedObject]]) -> AnnotatedObject:
    """One object of the parts of a group: of its masks where it has some, else of its boxes."""
    return joined([one for kind, one in parts if kind != "bbox"] or [one for _, one in parts])


def _numbers(values: Any, count: int | None = None) -> list[float]:
    numbers = [finite_number(value) for value in values] if isinstance(values, list) else []
    whole = [number for number in numbers if number is not None]
    if not whole or len(whole) < len(numbers) or (count is not None and len(whole) != count):
        raise ValueError(f"expected {count or 'some'} finite numbers, got {str(values)[:60]}")
    return whole


def write_datumaro(parts: Mapping[str, Dataset], folder: Path, images: ImageMode, masks: bool) -> Path:
    """`annotations/PART.json` and `images/PART/` for each part. An object with a mask becomes a mask, others a box.

    Returns:
        the folder, for `read_datumaro`.
    """
    with new_folder(folder) as draft:
        (draft / "annotations").mkdir()
        for part, dataset in parts.items():
            labels = [{"name": name, "parent": "", "attributes": []} for name in dataset.vocabulary.names]
            content = {
                "dm_format_version": "1.0",
                "infos": {},
                "categories": {"label": {"labels": labels, "attributes": ["is_crowd"]}},
                "items": [
                    _item(sample, name, masks) for sample, name in placed(dataset, draft / "images" / part, images)
                ],
            }
            text = json.dumps(content, ensure_ascii=False)
            (draft / "annotations" / f"{part}.json").write_text(text, encoding="utf-8")
    return folder


def _item(sample: Sample, name: str, masks: bool) -> dict[str, Any]:
    rows = []
    objects = sample.instances
    for i, (x1, y1, x2, y2) in enumerate(objects.boxes_xyxy_px.tolist()):
        row: dict[str, Any] = {"id": i, "attributes": {"is_crowd": bool(objects.is_crowd[i])}, "group": 0}
        row |= {"label_id": int(objects.class_ids[i]), "z_order": 0}
        if masks and objects.masks_rle is not None and coco_mask.area(objects.masks_rle[i]):
            row |= {"type": "mask", "rle": plain_rle(objects.masks_rle[i])}
        else:
            row |= {"type": "bbox", "bbox": [x1, y1, x2 - x1, y2 - y1]}
        rows.append(row)
    image = {"path": name, "size": list(sample.size_hw)}
    return {"id": PurePosixPath(name).stem, "annotations": rows, "attr": {}, "image": image}


DATUMARO = Format(
    "datumaro",
    find_datumaro,
    read_datumaro,
    takes=("masks", "split", "findings"),
    write_parts=write_datumaro,
    holds=Holds(masks=True, boxes_beside_masks=False, crowds=True),
    decisive=True,
)
