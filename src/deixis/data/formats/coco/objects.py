"""COCO's annotations as the objects of their images, and what is wrong with those that are none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from deixis.data.findings import Findings
from deixis.data.formats.coco.values import box_xyxy_px, finite_number, mask_rle
from deixis.errors import DataError
from deixis.records import Instances, Rle

_FAULTS_NAMED = 3


@dataclass
class Objects:
    """The annotations of one image, gathered."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    class_ids: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    masks: list[Rle | None] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def instances(self) -> Instances:
        whole = bool(self.masks) and all(mask is not None for mask in self.masks)
        masks = [mask for mask in self.masks if mask is not None] if whole else None
        scores = [score for score in self.scores if score is not None]
        return Instances.build(
            self.boxes,
            self.class_ids,
            self.crowd,
            areas_px=self.areas,
            masks_rle=masks,
            scores=scores if scores and len(scores) == len(self.boxes) else None,
        )


def gather(
    annotations: Sequence[Mapping[str, Any]],
    rows: Mapping[Any, int],
    classes: Mapping[Any, int],
    sizes_hw: Sequence[tuple[int, int]] | None,
    path: Path,
    findings: Findings | None,
) -> list[Objects]:
    """Annotations by image. Without findings all faults are counted, the first few named."""
    objects = [Objects() for _ in rows]
    faults: list[str] = []
    for number, item in enumerate(annotations):
        place = f"annotation {item.get('id', f'number {number + 1}')}"
        fault = _fault(item, rows, classes)
        if fault is not None:
            faults.append(f"{place}: {fault[1]}")
            if findings is not None:
                findings.add(fault[0], path, place, fault[1], "annotation removed")
            continue
        row = rows[item["image_id"]]
        mask = None
        try:
            mask = None if sizes_hw is None else mask_rle(item.get("segmentation"), sizes_hw[row])
        except ValueError as error:
            faults.append(f"{place}: segmentation {error}")
            if findings is not None:
                findings.add("mask_malformed", path, place, f"segmentation {error}", "masks of the image removed")
        box = box_xyxy_px(item["bbox"])
        assert box is not None  # _fault has seen to it
        area = finite_number(item.get("area"))
        if findings is not None and "area" in item and (area is None or area < 0):
            findings.add("area_malformed", path, place, f"area is {item['area']!r}", "area taken from the box")
            area = None
        objects[row].boxes.append(box)
        objects[row].class_ids.append(classes[item["category_id"]])
        objects[row].crowd.append(bool(item.get("iscrowd", False)))
        objects[row].areas.append(area if area is not None else max(box[2] - box[0], 0) * max(box[3] - box[1], 0))
        objects[row].masks.append(mask)
        objects[row].scores.append(finite_number(item.get("score")))
        objects[row].places.append(place)
    if faults and findings is None:
        more = f"; and {len(faults) - _FAULTS_NAMED} more faults" if len(faults) > _FAULTS_NAMED else ""
        raise DataError(f"{path.name}: {'; '.join(faults[:_FAULTS_NAMED])}{more}; correct or remove these annotations")
    return objects


def _fault(item: Mapping[str, Any], rows: Mapping[Any, int], classes: Mapping[Any, int]) -> tuple[str, str] | None:
    """What is wrong with an annotation, as a kind of finding and a text; or None."""
    absent = [key for key in ("image_id", "category_id", "bbox") if key not in item]
    if absent:
        return "record_malformed", f"has no {', '.join(absent)}"
    # A list or an object in place of an id could not even be looked up.
    if not isinstance(item["category_id"], int | str) or item["category_id"] not in classes:
        return "category_unknown", f"category_id {item['category_id']!r} not in categories {_short(classes)}"
    if not isinstance(item["image_id"], int | str) or item["image_id"] not in rows:
        return "image_unknown", f"image_id {item['image_id']!r} not among the {len(rows)} images"
    if box_xyxy_px(item["bbox"]) is None:
        return "box_malformed", f"bbox must be four finite numbers [x, y, width, height], got {item['bbox']!r}"
    return None


def _short(values: Collection[Any]) -> str:
    first = list(islice(values, 10))  # asked for once per fault
    return str(first) if len(values) <= 10 else f"[{', '.join(map(repr, first))}, … {len(values)} in all]"
