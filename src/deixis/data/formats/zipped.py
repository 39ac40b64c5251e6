"""Zipped exports, read in place: unpacked into a temporary folder, within limits, for as long as the process lives.

Data sets keep paths of images, which are opened long after their annotations were read, also by loading workers. So the
folder is removed when the process that unpacked it ends, and not before.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from deixis.errors import DataError
from deixis.text import one_line

MAX_FILES = 2_000_000
MAX_BYTES = 1 << 40
MAX_RATIO = 200
"""Of unpacked to packed bytes: pictures hardly shrink, text shrinks to a tenth; bombs are a thousand times as large."""
_FREE_RATIO_BYTES = 100 << 20  # up to here no ratio counts: a short file of zeros is no bomb
_SPARE_BYTES = 1 << 30  # of disk that are left free
_CHUNK = 1 << 20
_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive, and of an empty one
# `zipfile` raises RuntimeError for encrypted entries, NotImplementedError for methods of compression it lacks.
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)

_unpacked: dict[tuple[str, int, int], Path] = {}
_homes: list[Path] = []


def is_zip(path: Path) -> bool:
    """Whether a file is a ZIP archive by its content, and not called otherwise."""
    # .npz, .docx and PyTorch's .pt are ZIP archives too.
    if path.suffix.lower() not in (".zip", "") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in _STARTS
    except OSError:
        return False


def is_unpacked(path: Path) -> bool:
    """Whether a file lies in a folder of this module, which is gone when the process ends."""
    return any(home in path.absolute().parents for home in _homes)


def unpacked(path: Path) -> Path:
    """The folder that a ZIP archive is unpacked into; the same one each time, unless the archive has changed.

    Raises:
        DataError: a damaged or encrypted archive, names that lead outside of it, links, or more than the limits allow.
    """
    found = path.stat()
    key = (str(path.resolve()), found.st_size, found.st_mtime_ns)
    if key not in _unpacked:
        home = Path(tempfile.mkdtemp(prefix="deixis-zip-"))
        _homes.append(home)
        atexit.register(_remove, home, os.getpid())
        folder = home / (path.stem or "export")
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, folder, path)
        except DataError:
            shutil.rmtree(home, ignore_errors=True)
            raise
        except _FAULTS as error:
            shutil.rmtree(home, ignore_errors=True)
            raise DataError(
                f"{path}: cannot be unpacked ({one_line(error, 200)}); unpack it yourself and give the folder"
            ) from error
        _unpacked[key] = folder
    return _unpacked[key]


def _remove(home: Path, process: int) -> None:
    if os.getpid() == process:  # a forked worker inherits the call
        shutil.rmtree(home, ignore_errors=True)


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    entries = [entry for entry in archive.infolist() if not _is_left_by_macos(entry.filename)]
    if len(entries) > MAX_FILES:
        raise DataError(
            f"{path}: has {len(entries)} files, at most {MAX_FILES} are read; unpack it and give the folder"
        )
    packed = max(path.stat().st_size, 1)
    most = min(MAX_BYTES, max(MAX_RATIO * packed, _FREE_RATIO_BYTES), shutil.disk_usage(folder).free - _SPARE_BYTES)
    left = most
    for entry in entries:
        target = folder / _inside(entry, path)
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        # "x": of two entries with one name, the second must not replace the first.
        target.parent.mkdir(parents=True, exist_ok=True)
        # counted as it comes: the sizes that an archive states may be wrong
        with archive.open(entry) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise DataError(
                        f"{path}: unpacks to more than {most} bytes from {packed}, {MAX_RATIO} times its size or the "
                        f"free disk of {folder.parent.parent}; unpack it yourself and give the folder"
                    )
                file.write(chunk)


def _inside(entry: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    """The entry's place below the folder.

    Raises:
        DataError: it is outside, a link or another special file, or encrypted.
    """
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)  # the upper half holds Unix's mode; 0 from other systems
    if name.is_absolute() or ".." in name.parts or not name.parts or ":" in name.parts[0]:
        raise DataError(f"{path}: has an entry outside of the archive, {entry.filename[:80]!r}; do not trust it")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{path}: has a link or a special file, {entry.filename[:80]!r}; unpack it and give the folder")
    if entry.flag_bits & 1:
        raise DataError(f"{path}: is encrypted; unpack it and give the folder")
    return name


def _is_left_by_macos(name: str) -> bool:
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")
