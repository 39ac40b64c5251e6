"""Detections to roboflow's supervision and back. What its class has no place for is kept in `metadata`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deixis.errors import DataError, OptionError

KEY = "deixis"


def to_supervision(found: Any, masks: np.ndarray | None = None) -> Any:
    """As `supervision.Detections`.

    Args:
        found: has boxes_xyxy_px, scores, class_ids, names, image_id and size_hw.
        masks: boolean, (n, height, width).

    Raises:
        OptionError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise OptionError("to_supervision needs supervision: pip install --no-deps supervision") from error
    labels = np.array([found.names[i] for i in found.class_ids], dtype=str)
    return supervision.Detections(
        xyxy=np.asarray(found.boxes_xyxy_px, np.float64).reshape(-1, 4),
        mask=masks,
        confidence=np.asarray(found.scores, np.float64),
        class_id=np.asarray(found.class_ids, np.int64),
        tracker_id=getattr(found, "track_ids", None),
        data={"class_name": labels},
        metadata={KEY: {"names": list(found.names), "image_id": found.image_id, "size_hw": list(found.size_hw)}},
    )


def from_supervision(found: Any, names: Sequence[str] | None, size_hw: tuple[int, int] | None) -> dict[str, Any]:
    """The fields of `Detections` and the order of their rows; see `Detections.from_supervision`."""
    kept = (getattr(found, "metadata", None) or {}).get(KEY, {})
    count = len(found.xyxy)
    ids = np.zeros(count, np.int64) if found.class_id is None else np.asarray(found.class_id, np.int64)
    known = tuple(names or kept.get("names", ()))
    labels = (getattr(found, "data", None) or {}).get("class_name")
    if not known and labels is not None and len(labels):
        known = tuple(dict.fromkeys(map(str, labels)))
        ids = np.array([known.index(str(label)) for label in labels], np.int64)
    if count and (not known or ids.min() < 0 or ids.max() >= len(known)):
        raise DataError(f"class ids {sorted(set(ids.tolist()))[:9]} need as many names, got {list(known)}; give names")
    # ground truth there has no confidence
    scores = np.ones(count) if found.confidence is None else np.asarray(found.confidence, np.float64)
    order = np.argsort(-scores, kind="stable")
    tracks = getattr(found, "tracker_id", None)
    return {
        "boxes_xyxy_px": np.asarray(found.xyxy, np.float64).reshape(-1, 4)[order],
        "scores": scores[order],
        "class_ids": ids[order],
        "names": known,
        "image_id": int(kept.get("image_id", 0)),
        "size_hw": tuple(size_hw or kept.get("size_hw", (0, 0))),
        "track_ids": None if tracks is None else np.asarray(tracks, np.int64)[order],
        "order": order,
    }
