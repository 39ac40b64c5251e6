"""Writing annotated images.

annotations.jsonl   first a line with the model and settings, then one line per image with all its objects and scores
coco.json           COCO instances: boxes, masks (RLE), categories, all scores, captions
expressions.json    plain JSON (docs/formats.md) with the captions from which the model finds their masks again
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from deixis.atomic_files import write_atomic
from deixis.geometry.rle import plain_rle
from deixis.inference.annotator import AnnotatedImage
from deixis.inference.outputs.cycle import require_each

ANNOTATIONS, COCO, EXPRESSIONS = "annotations.jsonl", "coco.json", "expressions.json"
SCORES = ("detector_score", "predicted_iou", "box_fit", "caption_log_prob", "cycle_iou")


def image_key(image: Path, folder: Path) -> str:
    """An image's path as written in the outputs: relative to `folder`."""
    # `Path.relative_to` would fail for an image outside the folder
    return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()


def annotation_entry(image: str, number: int, annotated: AnnotatedImage) -> dict[str, Any]:
    """The line of an image; scores that were not computed are null."""
    objects = [
        {
            "name": found.name,
            "box_xyxy_px": [round(float(value), 2) for value in found.box_xyxy_px],
            "mask": plain_rle(found.mask.mask_rle),
            "mask_prompt": found.mask.prompt,
            "caption": found.caption.text,
            "detector_score": None if found.detector_score is None else round(found.detector_score, 5),
            "predicted_iou": round(found.mask.predicted_iou, 5),
            "box_fit": round(found.mask.fit, 5),
            "caption_log_prob": round(found.caption.score, 5),
            "cycle_iou": round(found.cycle_iou, 5),
        }
        for found in annotated.objects
    ]
    height, width = annotated.size_hw
    size = {"height": height, "width": width}
    return {"image": image, "id": number, **size, "left_out": annotated.left_out, "objects": objects}


def failed_entry(image: str, number: int, error: str) -> dict[str, Any]:
    """The line of an image that could not be read."""
    return {"image": image, "id": number, "error": error}


def require_annotated(entry: Mapping[str, Any]) -> None:
    """Raises one of `NOT_AN_ENTRY` for other values than those of `annotation_entry` and `failed_entry`."""
    require_each(str, entry["image"], entry.get("error", ""))
    if "error" in entry:
        return
    require_each(int, *(entry[name] for name in ("id", "height", "width", "left_out")))
    for found in entry["objects"]:
        left, top, right, bottom = found["box_xyxy_px"]
        require_each((int, float), left, top, right, bottom)
        require_each(str, found["name"], found["caption"])
        require_each(str, found["mask"]["counts"])
        require_each(int, *found["mask"]["size"])
        # without names there is no detector's score
        require_each((int, float, type(None)), *(found[name] for name in SCORES))


def write_coco_annotations(
    path: Path, entries: Iterable[Mapping[str, Any]], names: Sequence[str], *, provenance: Mapping[str, Any]
) -> int:
    """Write COCO instances, each annotation with `score`, every other score and its caption.

    `score` is the detector's, or the predicted IoU if there is none. Categories are the given names, in order; without
    any, those from the captions, sorted.

    Returns:
        The number of annotations.

    Raises:
        DataError: the file cannot be written.
    """
    listed = list(entries)
    categories = list(names) or sorted({found["name"] for entry in listed for found in entry["objects"]})
    numbers = {name: number for number, name in enumerate(categories, start=1)}
    annotations: list[dict[str, Any]] = []
    for entry in listed:
        for found in entry["objects"]:
            left, top, right, bottom = found["box_xyxy_px"]
            score = found["predicted_iou"] if found["detector_score"] is None else found["detector_score"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": entry["id"],
                    "category_id": numbers[found["name"]],
                    # COCO: left, top, width, height
                    "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
                    "area": int(coco_mask.area(found["mask"])),  # of the mask, as in COCO's own files
                    "segmentation": found["mask"],
                    "iscrowd": 0,
                    "score": score,
                    **{name: found[name] for name in (*SCORES, "mask_prompt", "caption")},
                    **({"track_id": found["track_id"]} if "track_id" in found else {}),
                }
            )
    content = {
        "info": {"provenance": dict(provenance)},
        "images": [
            {"id": e["id"], "file_name": e["image"], "height": e["height"], "width": e["width"]} for e in listed
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return len(annotations)


def write_expressions(
    path: Path, entries: Iterable[Mapping[str, Any]], threshold: float, *, provenance: Mapping[str, Any]
) -> int:
    """Write the captions whose cycle IoU is at least `threshold` as a data set of phrases.

    Returns:
        The number of captions.

    Raises:
        DataError: the file cannot be written.
    """
    kept = []
    for entry in entries:
        expressions = [
            {
                "text": [found["caption"]],
                "masks": [found["mask"]],
                "id": number,
                "tags": ["annotate"],
                "name": found["name"],
                **{name: found[name] for name in SCORES},
            }
            for number, found in enumerate(entry["objects"], start=1)
            if found["caption"].strip() and found["cycle_iou"] >= threshold
        ]
        if expressions:
            size = {"height": entry["height"], "width": entry["width"]}
            kept.append({"image": entry["image"], "id": entry["id"], **size, "expressions": expressions})
    made_by = {**provenance, "cycle_threshold": threshold}
    content = ",\n".join(json.dumps({**entry, "provenance": made_by}, ensure_ascii=False) for entry in kept)
    write_atomic(path, f"[\n{content}\n]\n" if kept else "[]\n")
    return sum(len(entry["expressions"]) for entry in kept)
