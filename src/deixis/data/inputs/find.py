"""Image files, and videos, from files, folders and glob patterns."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable
from pathlib import Path

from deixis.data.pixels.frames import is_video_file
from deixis.data.pixels.image_files import IMAGE_SUFFIXES, is_image_file, unread_pictures
from deixis.errors import DataError


def find_images(paths: str | Path | Iterable[str | Path], videos: bool = False) -> list[Path]:
    """Image files from files, folders (searched recursively) and glob patterns, each once, in order.

    Args:
        videos: find video files too.

    Raises:
        DataError: a path does not exist, a pattern matches nothing, or there is no image at all.

    >>> find_images("photographs/*.jpg")  # doctest: +SKIP
    [PosixPath('photographs/a.jpg'), PosixPath('photographs/b.jpg')]
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(expand(Path(path), videos)))
    if not found:
        raise DataError("no images to read: give image files, folders or patterns such as 'photographs/*.jpg'")
    return list(found)


def expand(path: Path, videos: bool = False) -> list[Path]:
    """The image files that one argument stands for, and the video files if asked.

    Raises:
        DataError: it does not exist, or contains no image.
    """
    if path.is_file():
        return [path]  # named by the user: whether it is an image is left to the decoder

    def wanted(file: Path) -> bool:
        return is_image_file(file) or (videos and is_video_file(file))

    if path.is_dir():
        everything = sorted(p for p in path.rglob("*") if p.is_file())
        files = [file for file in everything if wanted(file)]
        left = unread_pictures(file for file in everything if not wanted(file))
        if not files:
            hint = f"; {left}" if left else ""
            raise DataError(f"{path}: no image in this folder; looked for {', '.join(sorted(IMAGE_SUFFIXES))}{hint}")
        if left:
            warnings.warn(f"{path}: {left}", stacklevel=3)
        return files
    if any(character in str(path) for character in "*?["):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
        files = sorted(match for match in matches if wanted(match))
        if not files:
            raise DataError(f"{path}: the pattern matches no image")
        return files
    raise DataError(f"{path}: no such file or folder; --images takes files, folders and patterns")
