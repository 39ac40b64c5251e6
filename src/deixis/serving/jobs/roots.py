"""Folders that jobs may read: those that the server was started with, and what lies below them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deixis.errors import OptionError


def place_below(folders: Mapping[str, Path], path: str) -> Path:
    """The place that ROOT/PATH names, links followed.

    Args:
        folders: by name, those that may be read.

    Raises:
        OptionError: no such root, nothing there, or a place outside of the root; one message, so that nothing is
            learnt of what is there.
    """
    name, _, rest = path.partition("/")
    if name not in folders:
        raise OptionError(f"path: no folder {name[:100]!r} is served; served: {', '.join(folders) or 'none'}")
    root = folders[name].resolve()
    try:
        place = (root / rest).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # nothing there, a zero byte, a circle of links
        place = None
    if place is None or not is_below(place, root):
        raise OptionError(f"path: nothing at {path[:200]!r} below the folder {name!r}")
    return place


def is_below(place: Path, root: Path) -> bool:
    """Whether a place, links followed, is a folder or in it."""
    try:
        return place.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False
