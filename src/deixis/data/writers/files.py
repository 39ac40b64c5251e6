"""Files that are whole or absent: written beside their name first, then moved onto it."""

from __future__ import annotations

import os
from pathlib import Path

from deixis.errors import DataError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that no reader, and no crash, ever sees half of it. Missing folders are made.

    Raises:
        DataError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another output folder") from error
