"""Annotated images on one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco_mask

from deixis.data.inputs.pictures import ImageInput, as_pixels
from deixis.reporting.page import Table, percent, write_page
from deixis.reporting.pictures import shrunk
from deixis.results.draw import class_colour, draw_masks

GALLERY = "gallery.html"
GALLERY_IMAGES = 100
LONG_SIDE_PX = 800
TILES = {
    "pictures": "Images",
    "objects": "Objects",
    "captions": "Captions that find their mask",
    "left_out": "Detections without a mask that fits",
    "failed": "Images that could not be read",
}
HEADS = ("", "Name", "Caption", "Detector", "Mask", "Box fit", "Log-prob.", "Cycle IoU")
NOTE = (
    "In percent: the detector's score; SAM 2's own estimate of the mask's IoU; box fit, the IoU of the mask's "
    "bounding box with the detector's box; cycle IoU, of the mask with the one that its caption finds. Log-prob.: "
    "mean log-probability of the caption's words. Boxes are thin lines, masks are tinted."
)


def write_gallery(
    path: Path,
    pictures: Iterable[tuple[ImageInput, Mapping[str, Any]]],
    counts: Mapping[str, int],
    provenance: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        pictures: each picture, and its line of annotations.jsonl. Read one at a time.
        counts: by the keys of `TILES`.
        provenance: what the annotations were made by.

    Raises:
        DataError: a picture cannot be read, or the place cannot be written.
    """
    cards = [_card(file, entry) for file, entry in pictures]
    write_page(
        path,
        "gallery",
        counts={title: counts[key] for key, title in TILES.items()},
        note=NOTE,
        cards=cards,
        more=counts["pictures"] - len(cards),
        provenance={key: _as_text(value) for key, value in provenance.items()},
    )


def _card(file: ImageInput, entry: Mapping[str, Any]) -> tuple[str, UInt8[np.ndarray, "_h _w 3"], Table]:
    """The caption, the image with its objects drawn, and the table of what is known of them."""
    found = entry["objects"]
    caption = f"{entry['image']}: {len(found)} objects"
    rows = [[str(place), *_row(each)] for place, each in enumerate(found, start=1)]
    return caption, _drawn(as_pixels(file), found), Table(HEADS, rows, numbers=5, scroll=True)


def _row(found: Mapping[str, Any]) -> list[str]:
    score = found["detector_score"]
    return [
        found["name"],
        found["caption"],
        "–" if score is None else percent(score),
        percent(found["predicted_iou"]),
        "–" if score is None else percent(found["box_fit"]),
        f"{found['caption_log_prob']:.2f}",
        percent(found["cycle_iou"]),
    ]


def _drawn(pixels: UInt8[np.ndarray, "h w 3"], objects: Any) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image, at most so large that the page stays light, with boxes, masks and names."""
    small = shrunk(pixels, LONG_SIDE_PX).copy()
    size_wh, scale = small.shape[1::-1], min(1.0, LONG_SIDE_PX / max(pixels.shape[:2]))
    masks = []
    for place, found in enumerate(objects):
        mask = cv2.resize(np.ascontiguousarray(coco_mask.decode(found["mask"])), size_wh, interpolation=cv2.INTER_AREA)
        masks.append(mask.astype(bool))
        left, top, right, bottom = (round(value * scale) for value in found["box_xyxy_px"])
        # OpenCV draws the right and lower edge on the given pixels, which are the last ones inside.
        cv2.rectangle(small, (left, top), (max(left, right - 1), max(top, bottom - 1)), class_colour(place), 1)
    return draw_masks(small, masks, [f"{place} {found['name']}" for place, found in enumerate(objects, start=1)])


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
