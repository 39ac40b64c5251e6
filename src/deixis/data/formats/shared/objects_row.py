"""The columns of Hugging Face's `objects` layout, which its parquet files and its ImageFolder share."""

from __future__ import annotations

from typing import Any

from deixis.records import Sample


def objects_row(sample: Sample, first_id: int) -> dict[str, Any]:
    """An image's row without the image itself; `first_id` is the number of its first object."""
    objects = sample.instances
    height, width = sample.size_hw
    return {
        "image_id": sample.image_id,
        "width": width,
        "height": height,
        "objects": {
            "id": list(range(first_id, first_id + len(objects))),
            "bbox": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in objects.boxes_xyxy_px.tolist()],
            "category": objects.class_ids.tolist(),
            "area": objects.areas_px.tolist(),
            "iscrowd": objects.is_crowd.tolist(),
        },
    }
