"""Files and folders that are whole or absent: written beside their name first, then moved onto it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deixis.errors import DataError


@contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """A place to write a file, which takes the file's name when the block ends well and is removed when it does not.

    Missing folders are made; a block that writes nothing changes nothing. Errors pass as they are, for the caller to
    say what they mean.
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if draft.exists():
            draft.replace(path)
    finally:
        with suppress(OSError):  # renamed, or never made
            draft.unlink()


def draft_of(path: Path) -> Path:
    """Where this process writes a file or folder before it takes its name; `recipes.run.folder` removes leftovers."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that no reader, and no crash, ever sees half of it. Missing folders are made.

    Text is UTF-8. What UTF-8 cannot hold, bytes of file names, becomes an escape that JSON reads back as it was.

    Raises:
        DataError: the place cannot be written.
    """
    try:
        with file_aside(path) as draft:
            draft.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another output folder") from error


def require_new_folder(folder: Path) -> None:
    """Raises DataError for a folder that holds something, or a file of its name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; choose another output folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well and is removed when it does not.

    Raises:
        DataError: something of that name exists already, or the place cannot be written.
    """
    require_new_folder(folder)
    folder = folder.absolute()
    draft = draft_of(folder)
    try:
        try:
            draft.mkdir(parents=True)
            yield draft
            if folder.is_dir():  # empty, and in the way of the rename on Windows
                folder.rmdir()
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
