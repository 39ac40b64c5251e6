"""Permissions of written files: the user's own default, whatever a library chose."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_UMASK = os.umask(0)  # it can only be read by setting it; once, before there are threads
os.umask(_UMASK)


def give_user_mode(path: Path) -> None:
    """Permissions as `open` and `mkdir` give them: safetensors and temporary files are for their owner alone."""
    if path.is_symlink():
        return
    with suppress(OSError):  # file systems without permissions
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_UMASK)
