"""Which files are Label Studio's, their tasks, and the names of a labelling configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from deixis.data.formats.annotation_files import holds_text, parse_json, read_text
from deixis.data.formats.label_studio.regions import LABELS
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.data.reading import require_regular
from deixis.errors import DataError

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
