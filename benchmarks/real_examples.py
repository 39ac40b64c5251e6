"""Outputs on real photographs made short enough to be kept: no picture, no true mask, no path of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
REGIONS, PICTURES, OBJECTS, FRAMES = 40, 4, 4, 40  # of each output


def relative(name: str, folder: Path, root: Path) -> str:
    """An image that the outputs in `folder` name, as the data's folder names it."""
    return (folder / name).resolve().relative_to(root).as_posix()


def mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"


def share(values: Iterable[bool]) -> str:
    listed = list(values)
    return f"{100 * sum(listed) / len(listed):.0f}" if listed else "-"


def short_coco(coco: Mapping[str, Any], segmenter: str, detector: str) -> dict[str, Any]:
    """Of the first pictures the first objects, and the mask of one of them."""
    drawn = {a["image_id"] for a in coco["annotations"]}
    images = [image for image in coco["images"] if image["id"] in drawn][:PICTURES]
    annotations = []
    for image in images:
        for place, a in enumerate([a for a in coco["annotations"] if a["image_id"] == image["id"]][:OBJECTS]):
            annotations.append({key: a[key] for key in a if key != "segmentation" or not place})
    told = {**coco["info"]["provenance"], "segmenter": segmenter}
    if "detector" in told:
        told["detector"] = detector
    categories = [c for c in coco["categories"] if c["id"] in {a["category_id"] for a in annotations}]
    return {"info": {"provenance": told}, "images": images, "annotations": annotations, "categories": categories}


def short_tracks(tracks: Mapping[str, Any]) -> dict[str, Any]:
    """Of each phrase the scores and the mask's pixels in some frames, evenly spread, and one mask."""
    step = -(-tracks["frames"] // FRAMES)
    phrases = []
    for phrase in tracks["phrases"]:
        seen = [number for number, mask in enumerate(phrase["masks"]) if mask]
        areas = [int(coco_mask.area(mask)) if mask else 0 for mask in phrase["masks"]]
        values = {name: [round(v, 3) for v in phrase[name][::step]] for name in ("scores", "present")}
        mask = {"mask_in_frame": seen[len(seen) // 2], "mask": phrase["masks"][seen[len(seen) // 2]]} if seen else {}
        phrases.append({"text": phrase["text"], "areas_px": areas[::step], **values, **mask})
    return {**{name: tracks[name] for name in ("video", "size", "frames")}, "every": step, "phrases": phrases}


def write_example(path: Path, content: Mapping[str, Any] | Sequence[Any], forbidden: Iterable[Path]) -> None:
    """Write as JSON: a list an entry a line, of anything else each list in it an entry a line.

    Raises:
        ValueError: a path of this machine is in it.
    """

    def lines(entries: Sequence[Any]) -> str:
        return (
            "[]"
            if not entries
            else "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
        )

    if isinstance(content, Mapping):
        parts = {
            key: lines(v) if isinstance(v, list) and key != "size" else json.dumps(v) for key, v in content.items()
        }
        text = "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"
    else:
        text = lines(content) + "\n"
    for place in forbidden:
        if str(place) in text:
            raise ValueError(f"{path.name}: holds the path {place}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
