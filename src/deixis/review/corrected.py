"""A review as tasks of Label Studio, and what people drew there as actions of the review.

A region's id says which object it shows, `deixis-12`. Label Studio keeps ids where a person starts from a prediction.
So a region that came back as it was is accepted, one with another name renamed, one in another place moved, one that
is missing rejected, and one of another id drawn. A mask that was changed is rejected, and drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.label_studio.regions import labels_of, objects_of
from deixis.data.formats.review.read import mask_of
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.errors import DataError
from deixis.geometry.rle import plain_rle
from deixis.review import actions
from deixis.review.store import CORNERS, Row, Store
from deixis.serving.labelling.label_config import Control
from deixis.serving.labelling.regions import region_of

MASKS = Literal["brush", "polygon"]
IMAGE_KEY = "deixis_image"
"""Of a task's data: the image's id in the review."""
_SAME_PX = 0.5  # Label Studio rounds percents
_SAME_MASK_IOU = 0.995


def label_config(names: Sequence[str]) -> str:
    """The labelling configuration of a project: rectangles, polygons and brushes of every class, and a click tool."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    tags = (("RectangleLabels", "box"), ("PolygonLabels", "polygon"), ("BrushLabels", "brush"))
    for tag, name in (*tags, ("KeyPointLabels", "click")):
        control = ElementTree.SubElement(view, tag, name=name, toName="image")
        if name == "click":
            control.attrib |= {"smart": "true", "smartOnly": "true"}
        for label in names:
            ElementTree.SubElement(control, "Label", value=label)
    return ElementTree.tostring(view, encoding="unicode")


def task_of(store: Store, image: Row, picture: str, masks: MASKS) -> dict[str, Any]:
    """An image as a task; what is open or accepted in it as one prediction."""
    rows = store.rows(
        "SELECT * FROM objects WHERE image = ? AND status IN ('open', 'accepted') ORDER BY id", (image["id"],)
    )
    regions = [region for row in rows if (region := _region(row, image, masks)) is not None]
    scores = [row["score"] for row in rows if row["score"] is not None]
    found = {"model_version": store.fact("model") or "labels", "result": regions}
    prediction = {**found, "score": float(np.mean(scores))} if scores else found
    data = {"image": picture, IMAGE_KEY: image["id"], "file": Path(image["file"]).name, "why": image["why"]}
    return {"data": data, "predictions": [prediction]}


def _region(row: Row, image: Row, masks: MASKS) -> dict[str, Any] | None:
    size_hw = (image["height"], image["width"])
    found: dict[str, Any] = {"box_xyxy_px": [row[one] for one in CORNERS]}
    name, kind = "box", "rectanglelabels"
    if row["mask"] is not None:
        name, kind, found = masks, f"{masks}labels", {"mask": mask_of(row["mask"], size_hw)}
    control = Control(kind, name, "image", {}, None, False)
    region = region_of(control, row["label"], found, size_hw, row["score"] or 0.0)
    if region is None:
        return None
    if row["score"] is None:
        region.pop("score")
    return {**region, "id": f"deixis-{row['id']}"}


def apply_annotation(store: Store, image: Row, result: Sequence[Any], annotator: str, masks: MASKS) -> None:
    """What a person left of an image, as that person's actions; the image is finished.

    Raises:
        DataError: a region that cannot be read.
        ConflictError: somebody changes the same meanwhile.
    """
    rows = store.rows("SELECT * FROM objects WHERE image = ? AND status IN ('open', 'accepted')", (image["id"],))
    left = {f"deixis-{row['id']}": row for row in rows}
    for region in result:
        if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
            raise DataError(f"image {image['id']}: a region of Label Studio that is none: {str(region)[:40]!r}")
        if not labels_of(region["value"]):
            continue  # a point, a relation, a choice
        row = left.pop(str(region.get("id")), None)
        for drawn in _objects(region, image):
            if row is None:
                _draw(store, image, drawn, annotator)
            else:
                _correct(store, image, row, drawn, annotator=annotator, masks=masks)
            row = None  # further names of one region are objects of their own
    for row in left.values():
        actions.act_on_object(store, "reject", row["id"], version=row["version"], annotator=annotator)
    version = store.row("images", image["id"])["version"]
    actions.finish_image(store, image["id"], version=version, annotator=annotator)


def _objects(region: Mapping[str, Any], image: Row) -> list[AnnotatedObject]:
    try:
        size_hw = (image["height"], image["width"])
        return objects_of(region["value"], size_hw, True, finite_number(region.get("score")))
    except ValueError as error:
        raise DataError(f"image {image['id']}: a region of Label Studio {error}") from error


def _draw(store: Store, image: Row, drawn: AnnotatedObject, annotator: str) -> None:
    if drawn.mask_rle is None:
        actions.add_object(store, image["id"], drawn.label, annotator=annotator, box=drawn.box_xyxy_px)
    else:
        mask = plain_rle(drawn.mask_rle)
        actions.add_object(store, image["id"], drawn.label, annotator=annotator, mask=mask)


def _correct(store: Store, image: Row, row: Row, drawn: AnnotatedObject, *, annotator: str, masks: MASKS) -> None:
    """Accept an object as it came back, with another name, or in another place."""
    # Compared with what was sent: percents and outlines have rounded it already.
    pushed = _region(row, image, masks)
    (was,) = _objects(pushed, image) if pushed is not None else (drawn,)
    if not _same_place(was, drawn):
        if drawn.mask_rle is not None or row["mask"] is not None:  # another mask is another drawing
            actions.act_on_object(store, "reject", row["id"], version=row["version"], annotator=annotator)
            _draw(store, image, drawn, annotator)
            return
        actions.act_on_object(
            store, "move", row["id"], version=row["version"], annotator=annotator, box=drawn.box_xyxy_px
        )
        row = store.row("objects", row["id"])
    kind = "accept" if drawn.label == row["label"] else "rename"
    actions.act_on_object(store, kind, row["id"], version=row["version"], annotator=annotator, label=drawn.label)


def _same_place(was: AnnotatedObject, now: AnnotatedObject) -> bool:
    if was.mask_rle is not None and now.mask_rle is not None:
        return float(np.asarray(coco_mask.iou([was.mask_rle], [now.mask_rle], [0]))[0, 0]) >= _SAME_MASK_IOU
    if (was.mask_rle is None) != (now.mask_rle is None):
        return False
    return bool(np.abs(np.subtract(was.box_xyxy_px, now.box_xyxy_px)).max() <= _SAME_PX)
