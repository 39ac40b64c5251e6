"""Annotated pictures on one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.atomic_files import write_atomic
from deixis.data.pixels.images import load_image
from deixis.reporting.draw import class_colour
from deixis.reporting.draw_masks import draw_masks
from deixis.reporting.html import percent, render_page
from deixis.reporting.markup import columns, escape, key_values, number, table
from deixis.reporting.pictures import data_uri

GALLERY = "gallery.html"
LONG_SIDE_PX = 800
TILES = {
    "pictures": "Pictures",
    "objects": "Objects",
    "captions": "Captions that find their mask",
    "left_out": "Detections without a mask that fits",
    "failed": "Pictures not read",
}
HEADS = ("", "Name", "Caption", "Detector", "Mask", "Box fit", "Log-prob.", "Cycle IoU")
NOTE = (
    "In percent: the detector's score; the IoU that SAM 2 expects of the mask; box fit, the IoU of the mask's own box "
    "with the detector's; cycle IoU, of the mask with the one that its caption finds. Log-prob.: mean log-probability "
    "of the caption's words. Boxes are thin lines, masks are tinted."
)


def write_gallery(
    path: Path,
    pictures: Iterable[tuple[Path, Mapping[str, Any]]],
    counts: Mapping[str, int],
    provenance: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        pictures: each file, and its line of annotations.jsonl. Read one at a time.
        counts: by the keys of `TILES`.
        provenance: what the annotations were made by.

    Raises:
        DataError: a picture cannot be read, or the place cannot be written.
    """
    tiles = "".join(
        f'<div class="tile"><div class="name">{title}</div><div class="value">{number(counts[key])}</div></div>'
        for key, title in TILES.items()
    )
    cards = [_card(file, entry) for file, entry in pictures]
    more = counts["pictures"] - len(cards)
    rest = f'<p class="faint small">And {number(more)} pictures more, which are not shown.</p>' if more else ""
    sections = {
        "Summary": f'<div class="tiles">{tiles}</div><p class="faint small">{escape(NOTE)}</p>',
        "Pictures": "".join(cards) + rest,
        "Made by": key_values({key: _told(value) for key, value in provenance.items()}),
    }
    write_atomic(path, render_page("Annotated pictures", f"{number(counts['objects'])} objects", sections))


def _card(file: Path, entry: Mapping[str, Any]) -> str:
    """The picture with its objects, and beside it what is known of them."""
    found = entry["objects"]
    title = f"{entry['image']}: {len(found)} objects"
    image = f'<img alt="{escape(title)}" src="{data_uri(_drawn(load_image(file), found))}">'
    figure = f"<figure>{image}<figcaption>{escape(title)}</figcaption></figure>"
    rows = [[str(place), *_row(each)] for place, each in enumerate(found, start=1)]
    shown = f'<div class="pictures" style="--count:1">{figure}</div>'
    return columns(shown, f'<div class="scroll">{table(HEADS, rows, 5)}</div>' if rows else "<p>Nothing found.</p>")


def _row(found: Mapping[str, Any]) -> list[str]:
    score = found["detector_score"]
    return [
        escape(found["name"]),
        escape(found["caption"]),
        "–" if score is None else percent(score),
        percent(found["predicted_iou"]),
        "–" if score is None else percent(found["box_fit"]),
        f"{found['caption_log_prob']:.2f}",
        percent(found["cycle_iou"]),
    ]


def _drawn(pixels: UInt8[np.ndarray, "h w 3"], objects: Any) -> UInt8[np.ndarray, "h2 w2 3"]:
    """At most so large that the page stays light."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.array(Image.fromarray(pixels).resize(size_wh, Image.Resampling.LANCZOS))
    masks = []
    for place, found in enumerate(objects):
        mask = cv2.resize(np.ascontiguousarray(coco_mask.decode(found["mask"])), size_wh, interpolation=cv2.INTER_AREA)
        masks.append(mask.astype(bool))
        left, top, right, bottom = (round(value * scale) for value in found["box_xyxy_px"])
        cv2.rectangle(small, (left, top), (max(left, right - 1), max(top, bottom - 1)), class_colour(place), 1)
    return draw_masks(small, masks, [f"{place} {found['name']}" for place, found in enumerate(objects, start=1)])


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
