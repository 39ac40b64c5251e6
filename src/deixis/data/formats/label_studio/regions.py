"""Label Studio's tasks, labelling configurations, and regions of its results, in percent of the image, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from deixis.data.formats.annotation_files import holds_text, parse_json, read_text
from deixis.data.formats.coco.values import finite_number
from deixis.data.formats.label_studio.brush import decode_brush
from deixis.data.formats.shared.annotated_objects import (
    AnnotatedObject,
    bitmap,
    box,
    corners_of,
    ellipse_outline,
    points_of,
    points_of_pairs,
    polygon,
    turned,
)
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import require_regular
from deixis.errors import DataError

LABELS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "labels")


def labels_of(value: Mapping[str, Any]) -> list[str]:
    """The class names of a region; none where it has none, as points, relations and choices."""
    names: Any = next((value[key] for key in LABELS if value.get(key)), [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def objects_of(
    value: Mapping[str, Any], size_hw: tuple[int, int], masks: bool, score: float | None
) -> list[AnnotatedObject]:
    """One object for each label of a region.

    A rectangle turns about its left top corner, an ellipse about its centre. A turned one is the mask of its outline.

    Raises:
        ValueError: values that are absent or no numbers, or a brush that cannot be read.
    """
    if "rle" in value:
        pixels = decode_brush(value["rle"], size_hw)
        names = labels_of(value) if pixels.any() else []  # a brush that was erased again leaves its region
        return [bitmap(name, pixels, masks, score=score) for name in names]
    scale = np.array(size_hw[::-1]) / 100  # (width, height): pixels in one percent
    degrees = _number(value, "rotation", 0.0)
    if "points" in value:
        outline = points_of_pairs(value["points"]) * scale
    elif "radiusX" in value:
        x, y = _pair(value, "x", "y", scale)
        outline = turned(ellipse_outline((x, y), _pair(value, "radiusX", "radiusY", scale)), (x, y), degrees)
    else:
        (x, y), (width, height) = _pair(value, "x", "y", scale), _pair(value, "width", "height", scale)
        if not degrees:
            return [box(name, (x, y, x + width, y + height), score) for name in labels_of(value)]
        outline = turned(corners_of(x, y, width, height), (x, y), degrees)
    outline = points_of(outline.reshape(-1))
    return [polygon(name, [outline], size_hw, masks=masks, score=score) for name in labels_of(value)]


def _pair(value: Mapping[str, Any], first: str, second: str, scale: np.ndarray) -> tuple[float, float]:
    return _number(value, first) * float(scale[0]), _number(value, second) * float(scale[1])


def _number(value: Mapping[str, Any], key: str, default: float | None = None) -> float:
    number = finite_number(value.get(key, default))
    if number is None:
        raise ValueError(f"has no number {key!r}, got {str(value.get(key))[:40]!r}")
    return number


_MAX_CONFIG_BYTES = 1 << 20


def find_label_studio(path: Path) -> list[Path]:
    """The JSON files of Label Studio in a folder, its `tasks` or `annotations`; or a file itself, if it is one."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".json" and _is_label_studio(path) else []
    for place in (path, path / "tasks", path / "annotations"):
        files = [file for file in sorted(place.glob("*.json")) if not is_left_by_macos(file)]
        if files and any(map(_is_label_studio, files[:5])):
            return [file for file in files if _is_label_studio(file)]
    return []


def _is_label_studio(file: Path) -> bool:
    try:
        require_regular(file)
        with file.open("rb") as content:
            head = content.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    except (OSError, DataError):
        return False
    if not head.startswith((b"[", b"{")) or holds_text(file, '"categories"') or holds_text(file, '"coordinates"'):
        return False
    keys = ("annotations", "completions", "predictions", "task")
    if holds_text(file, '"data"') and any(holds_text(file, f'"{key}"') for key in keys):
        return head.startswith(b"[") or holds_text(file, '"result"')
    return head.startswith(b"[") and any(holds_text(file, f'"{key}"') for key in LABELS[:-1])


def tasks_of(file: Path) -> list[Any]:
    """The tasks of a file; an annotation with its task, as cloud storages hold them, as a task with one annotation.

    Raises:
        DataError: JSON of another kind.
    """
    content = parse_json(read_text(file), str(file))
    rows = content if isinstance(content, list) else [content]
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: is no Label Studio JSON: expected tasks as objects; export it again")
    return [_as_task(row) for row in rows]


def _as_task(row: dict[str, Any]) -> dict[str, Any]:
    task = row.get("task")
    return {**task, "annotations": [row]} if isinstance(task, dict) and "result" in row else row


def changed_at(annotation: Mapping[str, Any]) -> str:
    """When an annotation was last changed, as text that sorts; without dates before all others."""
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def listed_names(folder: Path) -> list[str]:
    """The labels of a labelling configuration in a folder, in their order."""
    for file in sorted(folder.glob("*.xml")):
        try:
            require_regular(file)
            if is_left_by_macos(file) or file.stat().st_size > _MAX_CONFIG_BYTES:
                continue
            root = ElementTree.fromstring(file.read_bytes())
        except (OSError, ValueError, LookupError, DataError, ElementTree.ParseError):
            continue
        names = [label.get("alias") or label.get("value") or "" for label in root.iter("Label")]
        if root.tag == "View" and names:
            return list(dict.fromkeys(name for name in names if name.strip()))
    return []
