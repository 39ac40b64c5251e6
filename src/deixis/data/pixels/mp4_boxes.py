"""Whether the boxes of an MP4 or MOV file (ISO/IEC 14496-12) fit into each other.

FFmpeg allocates what a box states before it reads the box, gigabytes for a damaged length of a small file.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from deixis.errors import DataError

_HEADER = 8  # bytes: size, name
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"stsd"}
_ENTRY_BYTES = {b"stts": 8, b"ctts": 8, b"stss": 4, b"stsz": 4}  # of the tables that FFmpeg allocates whole
_MAX_BOXES = 100_000  # looked at; fragmented films of a day have fewer


def check_boxes(path: Path) -> None:
    """Look at the boxes that tell FFmpeg how much to allocate; files of other kinds pass.

    Raises:
        DataError: a box that is longer than what it is in, or a table with more entries than its box has room for.
    """
    with path.open("rb") as file:
        if file.read(_HEADER)[4:] not in (b"ftyp", b"moov", b"wide", b"free", b"skip", b"mdat"):
            return
        length = file.seek(0, 2)
        open_boxes = [(0, length, b"")]  # (start, end, the box they are the content of)
        for _ in range(_MAX_BOXES):
            if not open_boxes:
                return
            start, end, parent = open_boxes.pop()
            if end - start < _HEADER:  # done, but for the zero that QuickTime may end a list with
                continue
            name, content, after = _box(file, start, end)
            if after > end and (parent or name in _PARENTS):
                raise DataError(
                    f"{path}: damaged: its box {name.decode('latin-1')!r} states {after - start} bytes where "
                    f"{end - start} are left; get the file again"
                )
            open_boxes.append((after, end, parent))
            # `stsd` opens with version, flags and a count (8 bytes); what it lists are codecs, which are not looked
            # into.
            if name in _PARENTS and parent != b"stsd":
                open_boxes.append((content + 8 * (name == b"stsd"), after, name))
            elif name in _ENTRY_BYTES:
                _check_table(path, file, name, content, after)


def _box(file: BinaryIO, start: int, end: int) -> tuple[bytes, int, int]:
    """The name of the box at a place, and where its content begins and ends."""
    file.seek(start)
    header = file.read(2 * _HEADER)
    size, name, content = int.from_bytes(header[:4], "big"), header[4:8], start + _HEADER
    if size == 1:  # the size follows in 64 bits
        size, content = int.from_bytes(header[8:], "big"), start + 2 * _HEADER
    return name, content, max(start + size, content) if size else end


def _check_table(path: Path, file: BinaryIO, name: bytes, content: int, after: int) -> None:
    """A table is version and flags, in `stsz` the size that all samples share or 0, the count, the entries."""
    fields = 12 if name == b"stsz" else 8
    file.seek(content)
    head = file.read(fields)
    if name == b"stsz" and any(head[4:8]):
        return  # all samples are of one size: no entries
    count, room = int.from_bytes(head[-4:], "big"), max(after - content - fields, 0) // _ENTRY_BYTES[name]
    if count > room:
        raise DataError(
            f"{path}: damaged: its table {name.decode('latin-1')!r} states {count} entries, there is room for {room}; "
            "get the file again"
        )
