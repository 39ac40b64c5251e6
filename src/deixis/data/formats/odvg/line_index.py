"""The lines of a file by position: an index on disk, each line read when it is asked for."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deixis.data.reading import require_regular
from deixis.errors import DataError

_ENTRY = np.dtype([("offset", "<i8"), ("number", "<i4"), ("height", "<i4"), ("width", "<i4")])
_AT_ONCE = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A line that is not blank.

    Attributes:
        number: counted from 1, blank lines included.
        offset: of its first byte in the file.
    """

    number: int
    offset: int
    text: str


class LineIndex:
    """Where each record of a file begins, its line number and its image's size: 20 bytes per record, mapped from disk.

    The index lies in a temporary file without a name, which goes when the process does. Nothing of the records stays
    in memory, and worker processes share what they inherit.

    Args:
        file: the file of lines.
        entries: (line, image size as (height, width)) of each record, in order.
    """

    def __init__(self, file: Path, entries: Iterator[tuple[Line, tuple[int, int]]]) -> None:
        self.file = file
        count = 0
        with tempfile.TemporaryFile() as store:
            rows = [(line.offset, line.number, *size_hw) for line, size_hw in _first(entries, _AT_ONCE)]
            while rows:
                store.write(np.array(rows, _ENTRY).tobytes())
                count += len(rows)
                rows = [(line.offset, line.number, *size_hw) for line, size_hw in _first(entries, _AT_ONCE)]
            store.flush()
            # The map keeps a descriptor of its own, so it outlives the file that is closed here.
            self._entries = np.memmap(store, _ENTRY, "r", shape=(count,)) if count else np.zeros(0, _ENTRY)

    def __len__(self) -> int:
        return len(self._entries)

    def line(self, index: int) -> Line:
        """The line of a record.

        Raises:
            DataError: the file has changed since it was indexed.
        """
        entry = self._entries[index]
        require_regular(self.file)
        try:
            with self.file.open("rb") as lines:
                lines.seek(int(entry["offset"]))
                text = lines.readline().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.file}: cannot be read any more ({error}); start again") from error
        return Line(int(entry["number"]), int(entry["offset"]), text)

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of a record's image."""
        entry = self._entries[index]
        return int(entry["height"]), int(entry["width"])


class LineReader:
    """Every line of a file that is not blank, in one pass; after it, `digest` is the SHA-256 of all that was read.

    Raises:
        DataError: the file is missing, may not be read, or is no UTF-8 text.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of the lines read so far, as 64 hexadecimal digits."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Line]:
        require_regular(self.file)
        offset, number = 0, 0
        where = str(self.file)
        try:
            with self.file.open("rb") as lines:
                for number, content in enumerate(lines, start=1):
                    self._hash.update(content)
                    # The offset is where the text begins, so that `line` reads it without the mark.
                    skipped = len(_BYTE_ORDER_MARK) if number == 1 and content.startswith(_BYTE_ORDER_MARK) else 0
                    text = content[skipped:].decode()
                    if text.strip():
                        yield Line(number, offset + skipped, text)
                    offset += len(content)
        except FileNotFoundError as error:
            raise DataError(f"{where}: annotation file not found; check the path") from error
        except OSError as error:
            raise DataError(f"{where}: cannot read ({error.strerror}); check the path and its permissions") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: line {number}: is no UTF-8 text ({error.reason}); export it again") from error


def _first(entries: Iterator[tuple[Line, tuple[int, int]]], count: int) -> Iterator[tuple[Line, tuple[int, int]]]:
    """The next `count` entries at most."""
    for _, entry in zip(range(count), entries, strict=False):
        yield entry
