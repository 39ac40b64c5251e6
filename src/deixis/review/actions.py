"""What people do to objects and images: each a transaction of its own, each undone by the log."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from deixis.errors import DataError
from deixis.geometry.rle import counts_rle
from deixis.review.store import CORNERS, ConflictError, Edit, Row, Store
from deixis.text import clean_name

STATUS = {"accept": "accepted", "reject": "rejected", "delete": "deleted", "reopen": "open"}
"""Actions on an object that only decide about it."""
OBJECT_KINDS = (*STATUS, "rename", "move")
IMAGE_KINDS = ("finish", "unfinish")
KINDS = (*OBJECT_KINDS, "add", *IMAGE_KINDS)
_MAX_NAME = 200


def act_on_object(
    store: Store, kind: str, number: int, *, version: int, annotator: str, label: str = "", box: Sequence[float] = ()
) -> int:
    """Accept, reject, delete, reopen, rename or move an object; the id of its image.

    What is renamed or moved is thereby accepted. A moved object loses its mask, which fits no longer.

    Args:
        version: that its author saw.
        label: of `rename`; a new name becomes a class.
        box: corners in pixels, of `move`.

    Raises:
        ConflictError: somebody changed it meanwhile.
        DataError: no such object, or values that are none.
    """
    with store.changing() as edit:
        row = edit.seen("objects", number, version)
        values: dict[str, Any] = {"status": STATUS.get(kind, "accepted")}
        if kind == "rename":
            values["label"] = _class(store, label)
        if kind == "move":
            values |= dict(zip(CORNERS, _box(store, row["image"], box), strict=True)) | {"mask": None}
        edit.change("objects", row, annotator, values)
        edit.log(kind, annotator, row["image"])
        return int(row["image"])


def add_object(
    store: Store,
    image: int,
    label: str,
    *,
    annotator: str,
    box: Sequence[float] = (),
    mask: Mapping[str, Any] | None = None,
) -> int:
    """Draw an object, by its box or its mask (COCO's run lengths in the image's size); its id.

    Raises:
        DataError: no such image, or values that are none.
    """
    with store.changing() as edit:
        row = store.row("images", image)
        text = None
        if mask is not None:
            box, text = _bounds(mask, (row["height"], row["width"]))
        corners = _box(store, image, box)
        values = {"image": image, "label": _class(store, label), **dict(zip(CORNERS, corners, strict=True))}
        first = json.dumps({"label": values["label"], "box": corners, "mask": text})
        number = edit.add(annotator, {**values, "mask": text, "origin": "drawn", "first": first})
        edit.log("add", annotator, image)
        return number


def finish_image(store: Store, image: int, *, version: int, annotator: str) -> None:
    """An image is done: what is still open in it is accepted.

    Raises:
        ConflictError: somebody changed it, or an object of it, meanwhile.
        DataError: no such image.
    """
    with store.changing() as edit:
        row = edit.seen("images", image, version)
        for one in store.rows("SELECT * FROM objects WHERE image = ? AND status = 'open'", (image,)):
            edit.change("objects", one, annotator, {"status": "accepted"})
        edit.change("images", row, annotator, {"status": "done"})
        edit.log("finish", annotator, image)


def unfinish_image(store: Store, image: int, *, version: int, annotator: str) -> None:
    """An image is not done after all; its objects stay as they are.

    Raises:
        ConflictError: somebody changed it meanwhile.
        DataError: no such image.
    """
    with store.changing() as edit:
        edit.change("images", edit.seen("images", image, version), annotator, {"status": "open"})
        edit.log("unfinish", annotator, image)


def undo(store: Store, annotator: str) -> int:
    """Undo the latest action of a person that is not undone; the id of its image.

    Raises:
        ConflictError: somebody else changed the same since.
        DataError: there is nothing to undo.
    """
    with store.changing() as edit:
        found = store.rows(
            "SELECT * FROM actions a WHERE annotator = ? AND undoes IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM actions b WHERE b.undoes = a.id) ORDER BY id DESC LIMIT 1",
            (annotator,),
        )
        if not found:
            raise DataError(f"{annotator} has nothing to undo")
        action = found[0]
        # The last change first, as each was made on top of the one before.
        for change in reversed(json.loads(action["changes"])):
            _restore(store, edit, change, annotator)
        edit.log("undo", annotator, action["image"], undoes=action["id"])
        return int(action["image"])


def _restore(store: Store, edit: Edit, change: Row, annotator: str) -> None:
    row = store.row(change["table"], change["id"])
    after: Row = change["after"]
    changed = [name for name, value in after.items() if value != change["before"][name]]
    # what an undone action left behind may have a higher version; only other values are a conflict
    if any(row[name] != after[name] for name in changed):
        raise ConflictError(row)
    edit.change(change["table"], row, annotator, change["before"])


def _class(store: Store, label: str) -> str:
    """The name of a class, which is made where it is new."""
    name = clean_name(label)
    if not name or len(name) > _MAX_NAME:
        raise DataError(f"label: expected a name of at most {_MAX_NAME} characters, got {label[:40]!r}")
    if not store.rows("SELECT 1 FROM classes WHERE name = ?", (name,)):
        last = store.rows("SELECT MAX(category_id) AS last FROM classes")[0]["last"]
        store.write("INSERT INTO classes (name, category_id) VALUES (?, ?)", (name, (last or 0) + 1))
    return name


def _box(store: Store, image: int, box: Sequence[float]) -> list[float]:
    """Corners inside the image, left top first."""
    row = store.row("images", image)
    if len(box) != 4 or not all(math.isfinite(number) for number in box):
        raise DataError(f"box: expected four finite numbers, got {list(box)[:5]}")
    x1, x2 = sorted(min(max(float(x), 0.0), row["width"]) for x in (box[0], box[2]))
    y1, y2 = sorted(min(max(float(y), 0.0), row["height"]) for y in (box[1], box[3]))
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise DataError("box: has less than one pixel inside of the image; draw a larger one")
    return [x1, y1, x2, y2]


def _bounds(mask: Mapping[str, Any], size_hw: tuple[int, int]) -> tuple[list[float], str]:
    """The box of a mask, and the mask as it is stored."""
    if list(mask.get("size", ())) != list(size_hw):
        raise DataError(f"mask: expected the size {list(size_hw)} (height, width), got {mask.get('size')}")
    try:
        rle = counts_rle(mask["counts"], size_hw)
    except (KeyError, ValueError) as error:
        raise DataError(f"mask: {error}") from error
    if not coco_mask.area(rle):
        raise DataError("mask: has no pixel; click on the object")
    x, y, width, height = map(float, coco_mask.toBbox(rle))
    stored = {"size": list(size_hw), "counts": rle["counts"].decode("ascii")}
    return [x, y, x + width, y + height], json.dumps(stored)
