"""A folder that is replaced whole: a crash at any moment leaves the old or the new content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from deixis.errors import TrainingError
from deixis.file_modes import give_user_mode


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Replace a folder's content, all or nothing.

    Yields an empty folder beside `folder`. After the block its files are flushed to disk and it replaces `folder`,
    whose old content is kept as `.<name>.previous` until then. A crash at any moment leaves the old or the new content,
    which `recover` finds. The names are hidden because `last.previous` may be a copy that a user made.

    Raises:
        TrainingError: the folder cannot be written.
    """
    fresh, previous = (folder.with_name(f".{folder.name}.{kind}") for kind in ("writing", "previous"))
    try:
        recover(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        # files first, then the folder that names them; only then may the rename become visible
        for path in [*fresh.rglob("*"), fresh]:
            give_user_mode(path)
            _flush(path)
        if folder.exists():
            # a folder with content cannot be renamed over; until the next line only `recover` finds the old one
            folder.rename(previous)
        fresh.rename(folder)
        _flush(folder.parent)  # a rename is durable once its folder is flushed
        shutil.rmtree(previous, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); its previous content is kept") from error


def exists_or_interrupted(folder: Path) -> bool:
    """Whether the folder exists, or `recover` can restore it. Changes nothing."""
    return folder.exists() or any(place.exists() for place in _previous(folder))


def recover(folder: Path) -> bool:
    """Finish a replacement that a crash interrupted. Returns whether the folder exists afterwards."""
    if folder.exists():
        # only under the name used now: the other one may be a user's copy
        shutil.rmtree(_previous(folder)[0], ignore_errors=True)
        return True
    for previous in _previous(folder):
        if previous.exists():
            previous.rename(folder)
            return True
    return False


def _previous(folder: Path) -> tuple[Path, Path]:
    """Where the old content is kept during a replacement: the name used now, and that of older versions."""
    return folder.with_name(f".{folder.name}.previous"), folder.with_name(f"{folder.name}.previous")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
