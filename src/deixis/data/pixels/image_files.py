"""Which files are pictures, which are known but not read, and what a file that is no picture is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from deixis.data.reading import require_regular
from deixis.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif", ".mpo"}
)
# Pictures that Pillow does not decode by itself, and videos; to what to do about them.
_CONVERT = "convert them to PNG or JPEG"
_FRAMES = "extract their frames as pictures"
UNREAD_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), f"{_CONVERT} (HEIC needs pillow-heif)"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".svg", ".exr", ".hdr", ".tga", ".ico"), _CONVERT),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), f"{_CONVERT} (raw photographs)"),
    **dict.fromkeys((".dcm", ".nii", ".npy", ".fits", ".pdf"), _CONVERT),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"), _FRAMES),
}
HEAD = 512  # bytes from which a file is recognised
_VIDEO = "a video; give pictures: extract its frames first"
_ARCHIVE = "archive; unpack it and give the folder"
_STARTS = (
    (b"PK\x03\x04", f"a ZIP {_ARCHIVE}"),
    (b"PK\x05\x06", f"a ZIP {_ARCHIVE}"),  # an empty one
    (b"\x1f\x8b", f"a gzip {_ARCHIVE}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z {_ARCHIVE}"),
    (b"Rar!", f"a RAR {_ARCHIVE}"),
    (b"BZh", f"a bzip2 {_ARCHIVE}"),
    (b"\xfd7zXZ", f"an XZ {_ARCHIVE}"),
    (b"\x1aE\xdf\xa3", _VIDEO),  # Matroska, WebM
    (b"\x00\x00\x01\xba", _VIDEO),  # MPEG program stream
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture; convert it to PNG or JPEG"),
    (b"\xffO\xffQ", "a JPEG 2000 picture; convert it to PNG or JPEG"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture; convert it to PNG or JPEG"),
    (b"%PDF", "a PDF; export its pages as pictures"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run 'git lfs pull'"),
    (b"PAR1", "a parquet file; give it the suffix .parquet"),
    (b"SQLite format 3", "an SQLite database; export its content"),
    (b"\x00\x05\x16\x07", "a macOS resource file ('._' file), which holds no data of yours"),  # AppleDouble
)
_HEIC = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


def kind_of_content(head: bytes) -> str | None:
    """What a file is that is neither text nor a picture that is read, with the way out; None where that is unknown.

    Args:
        head: its first bytes, `HEAD` of them or fewer.

    >>> kind_of_content(b"PK\\x03\\x04...")
    'a ZIP archive; unpack it and give the folder'
    """
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    # ISO base media (ISO/IEC 14496-12), of videos and pictures alike: the brand after `ftyp` says which.
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIC:
            return "a HEIC picture, which needs pillow-heif; convert it to PNG or JPEG"
        if head[8:12] == b"crx ":  # Canon's CR3
            return "a raw photograph; convert it to PNG or JPEG"
        return None if head[8:12] in (b"avif", b"avis") else _VIDEO
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _VIDEO
    if head[257:262] == b"ustar":  # POSIX tar: at byte 257 of the first file's header
        return f"a tar {_ARCHIVE}"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps of a download that failed; download the file again"
    return None


def kind_of_file(path: Path) -> str | None:
    """`kind_of_content` of a file; by its suffix where its content is unknown, None where that is unknown too."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            found = kind_of_content(file.read(HEAD))
    except (OSError, ValueError, DataError):
        found = None
    if found is None and path.suffix.lower() in UNREAD_SUFFIXES:
        return f"a {path.suffix} file, which is not read; {UNREAD_SUFFIXES[path.suffix.lower()]}"
    return found


def is_left_by_macos(path: Path) -> bool:
    """Whether a file is a resource fork that macOS writes beside files (`._a.jpg`) or packs (`__MACOSX/`)."""
    return path.name.startswith("._") or "__MACOSX" in path.parts


def is_image_file(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_left_by_macos(path)


def natural_key(path: Path) -> tuple[int, str]:
    """Frames named by number alone go by number (2 before 10), any others by name."""
    return (int(path.stem), path.name) if path.stem.isdecimal() else (0, path.name)


def unread_pictures(files: Iterable[Path]) -> str:
    """A line that counts the known pictures and videos that are not read; empty where there are none.

    >>> unread_pictures([Path("a.heic"), Path("b.jpg"), Path("c.heic")])
    '2 .heic files are left out: convert them to PNG or JPEG (HEIC needs pillow-heif)'
    """
    seen = Counter(file.suffix.lower() for file in files if not is_left_by_macos(file))
    return "; ".join(
        f"{count} {suffix} file{'s are' if count > 1 else ' is'} left out: {UNREAD_SUFFIXES[suffix]}"
        for suffix, count in sorted(seen.items())
        if suffix in UNREAD_SUFFIXES
    )
