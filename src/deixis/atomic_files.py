"""Files and folders that are whole or absent: written beside their name first, then moved onto it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deixis.errors import DataError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that no reader, and no crash, ever sees half of it. Missing folders are made.

    Text is UTF-8. What UTF-8 cannot hold, bytes of file names, becomes an escape that JSON reads back as it was.

    Raises:
        DataError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another output folder") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well and is removed when it does not.

    Raises:
        DataError: something of that name exists already, or the place cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; choose another output folder")
    folder = folder.absolute()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        try:
            draft.mkdir(parents=True)
            yield draft
            if folder.is_dir():
                folder.rmdir()
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
