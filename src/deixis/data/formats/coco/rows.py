"""COCO's rows as exporters write them, brought into the form that the reader checks: ids, boxes, root categories."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import box_xyxy_px, finite_number, image_size, polygons_of
from deixis.data.formats.shared.box_values import Frame, frame_of, warn_frame
from deixis.geometry.rle import counts_rle

Row = dict[str, Any]
_ROOT_PARENTS = {"", "none", "null"}  # of Roboflow's root, "none"


def settle_ids(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The three lists with whole ids as integers, and ids of annotations as the images and categories write theirs.

    `"1"`, `1` and `1.0` are one id. An id that is not listed in any spelling stays as it is, to be refused. A category
    that is named by a number, as those of digits are, has it as text; sizes and boxes that are text become numbers.
    """
    images, categories = _whole(content["images"], "id"), _whole(content["categories"], "id")
    categories = [_named_by_text(row) for row in categories]
    images = _in_numbers(images, ("height", "width"))
    annotations = _as_listed(_in_numbers(content["annotations"], ("bbox", "area")), "image_id", images)
    return {
        "images": images,
        "categories": categories,
        "annotations": _as_listed(annotations, "category_id", categories),
    }


def _named_by_text(row: Any) -> Any:
    name = row.get("name") if isinstance(row, dict) else None
    return row | {"name": str(name)} if isinstance(name, int | float) and not isinstance(name, bool) else row


def _in_numbers(rows: Sequence[Any], keys: Sequence[str]) -> list[Any]:
    """Rows whose values at `keys` are numbers, or lists of them, where they were the text of such."""
    settled = []
    for row in rows:
        texts = [key for key in keys if isinstance(row, dict) and _has_text(row.get(key))]  # of most rows none
        settled.append(row | {key: _number_of(row[key]) for key in texts} if texts else row)
    return settled


def _has_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(isinstance(part, str) for part in value))


def _number_of(value: Any) -> Any:
    """A number for its text, a list for "[1, 2]" or "1,2"; anything else as it is."""
    if isinstance(value, list):
        return [_number_of(part) if isinstance(part, str) else part for part in value]
    try:
        numbers = [float(part) for part in value.strip().strip("[]()").replace(",", " ").split()]
    except ValueError:
        return value
    return numbers if len(numbers) > 1 else numbers[0] if numbers else value


def _whole(rows: Sequence[Any], key: str) -> list[Any]:
    return [
        row | {key: int(row[key])} if isinstance(row, dict) and _is_whole_float(row.get(key)) else row for row in rows
    ]


def _as_listed(rows: Sequence[Any], key: str, listed: Sequence[Any]) -> list[Any]:
    ids = [row["id"] for row in listed if isinstance(row, dict) and isinstance(row.get("id"), int | str)]
    known, by_text = set(ids), {plain_id(value): value for value in ids}
    settled = []
    for row in rows:
        value = row.get(key) if isinstance(row, dict) else None
        if isinstance(value, int | float | str) and not isinstance(value, bool) and value not in known:
            row = row | {key: by_text.get(plain_id(value), value)}
        elif isinstance(value, float) and _is_whole_float(value):  # 1.0 is 1 among the known
            row = row | {key: int(value)}
        settled.append(row)
    return settled


def plain_id(value: float | str) -> str:
    """One text for all spellings of an id, `"1"`, `1` and `1.0`; other text as it is."""
    text = str(int(value) if _is_whole_float(value) else value).strip()
    number = text.removesuffix(".0")
    digits = number.removeprefix("-")
    # `int` refuses text of thousands of digits.
    return str(int(number)) if digits.isdecimal() and len(digits) < 40 else text


def _is_whole_float(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def without_root(rows: list[Row], used: set[Any], where: str) -> list[Row]:
    """The categories without an exporter's root: unused, and the supercategory of others or the first of none.

    Roboflow writes the project's name as category 0, the supercategory of all classes. As a class it would be asked
    for, and never found.
    """
    parents = {str(row.get("supercategory")).strip() for row in rows if row["id"] in used}
    roots = [
        row
        for row in rows
        if row["id"] not in used
        and str(row.get("name")).strip() in parents
        and str(row.get("supercategory", "")).strip().lower() in _ROOT_PARENTS
    ]
    if roots:
        names = ", ".join(repr(str(row.get("name"))) for row in roots)
        warnings.warn(
            f"{where}: left out the category {names}: no object has it, and it is the supercategory of the others",
            stacklevel=3,
        )
    return [row for row in rows if row not in roots]


def with_boxes(rows: Iterable[Any]) -> list[Any]:
    """Annotations without a box with that of their segmentation, where they have one."""
    return [_with_box(row) if isinstance(row, dict) and not row.get("bbox") else row for row in rows]


def _with_box(row: Row) -> Row:
    box = _bounds(row.get("segmentation"))
    return row if box is None else row | {"bbox": box}


def _bounds(segmentation: Any) -> list[float] | None:
    """[x, y, width, height] around a segmentation; None where there is none that can be read."""
    try:
        if isinstance(segmentation, dict):
            size_hw = image_size(*segmentation["size"])
            box = np.asarray(coco_mask.toBbox(counts_rle(segmentation["counts"], size_hw))).tolist()
            return [float(value) for value in box] if min(box[2:]) > 0 else None
        polygons = polygons_of(segmentation)
    except (ValueError, KeyError, TypeError):
        return None
    if not polygons:
        return None
    points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons])
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def in_pixels(
    annotations: Sequence[Any], sizes_hw: Mapping[Any, tuple[int, int]], where: str
) -> tuple[list[Any], Frame]:
    """Annotations whose boxes are [x, y, width, height] in pixels, and how they were written; see `frame_of`.

    Raises:
        DataError: they are shares of the image, and it is not clear of what.
    """
    rows = [row for row in annotations if _has_box(row, sizes_hw)]
    boxes = np.array([[finite_number(value) for value in row["bbox"]] for row in rows], np.float64).reshape(-1, 4)
    sizes = np.array([sizes_hw[row["image_id"]] for row in rows], np.float64).reshape(-1, 2)
    frame = frame_of(boxes, sizes, where)
    warn_frame(frame, where)
    if frame == "xywh":
        return list(annotations), frame
    if frame.startswith("share"):
        boxes = boxes * sizes[:, [1, 0, 1, 0]]  # (height, width) as (width, height, width, height)
    if frame.endswith("corners"):
        boxes[:, 2:] -= boxes[:, :2]
    # by identity: two rows may be equal
    settled = {id(row): row | {"bbox": box} for row, box in zip(rows, boxes.tolist(), strict=True)}
    return [settled.get(id(row), row) for row in annotations], frame


def _has_box(row: Any, sizes_hw: Mapping[Any, tuple[int, int]]) -> bool:
    """Whether a row has a box to judge the frame by; crowds and what is refused later are none."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("image_id"), int | str)
        and row["image_id"] in sizes_hw
        and box_xyxy_px(row.get("bbox")) is not None
    )
